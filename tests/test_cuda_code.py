"""The reading of compiled CUDA kernels itself, on small kernels and on written machine code."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from benchmarks import cuda_code
from benchmarks.cuda_code import Code

needs_compiler = pytest.mark.skipif(bool(cuda_code.missing()), reason=str(cuda_code.missing()))
ARCHITECTURES = ("sm_80", "sm_90")

# A loop over 16 bytes, within one whose slow road lies behind the end and loads twice as much.
SASS = """
.text.kernel:
        /*0000*/                   LDG.E.U16 R0, desc[UR4][R2.64] ;
.L_x_1:
        /*0010*/                   LDG.E R0, desc[UR4][R2.64] ;
.L_x_2:
        /*0020*/              @!P2 LDG.E.EF.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0030*/                   MUFU.EX2 R4, R4 ;
        /*0040*/              @!P2 BRA !P3, `(.L_x_4) ;
.L_x_3:
        /*0050*/                   BRA.U UP0, `(.L_x_2) ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
        /*0070*/                   LDG.E.64 R0, desc[UR4][R2.64] ;
        /*0080*/                   STG.E.EF.128 desc[UR4][R2.64], R4 ;
        /*0090*/                   EXIT ;
.L_x_4:
        /*00a0*/                   LDG.E.U8.STRONG.GPU R4, desc[UR4][R2.64] ;
        /*00b0*/                   LDGSTS.E.128 [R5], desc[UR4][R2.64] ;
        /*00c0*/                   BRA `(.L_x_3) ;
.L_x_5:
        /*00d0*/                   BRA `(.L_x_5);
"""


@pytest.fixture(scope="module")
def written():
    return Code(ptx="", sass=SASS, registers=0, stack=0, spills=0, shared=0)


def test_only_widths_count(written):
    assert written.loads == Counter({16: 1, 32: 1, 128: 1, 64: 1, 8: 1})
    assert written.stores == Counter({128: 1})
    assert written.mufu == Counter({"EX2": 1})


def test_the_innermost_loop_has_its_slow_road_and_nothing_else(written):
    assert written.main_loop_loads() == Counter({128: 1, 8: 1})
    assert "EXIT" not in written.main_loop()


def test_a_loop_that_holds_no_other_is_innermost(written):
    outer = dataclasses.replace(written, sass=SASS.replace("UP0, `(.L_x_2)", "UP0, `(.L_x_4)"))
    assert outer.main_loop_loads() == Counter({32: 1, 128: 1, 8: 1})


def test_of_two_loops_that_load_as_much_the_wider_is_the_main_one(written):
    text = """
.text.kernel:
.L_x_1:
        /*0000*/                   LDG.E.64 R0, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.64 R0, desc[UR4][R2.64] ;
        /*0020*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0030*/                   LDG.E.128 R0, desc[UR4][R2.64] ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/                   EXIT ;
"""
    assert dataclasses.replace(written, sass=text).main_loop_loads() == Counter({128: 1})


def test_a_kernel_without_loops_has_no_main_loop(written):
    straight = dataclasses.replace(written, sass="/*0000*/ LDG.E R0, [R2] ;\n/*0010*/ EXIT ;")
    assert straight.main_loop() == []
    assert straight.main_loop_loads() == Counter()


def test_directives_and_comments_are_no_instructions(written):
    ptx = """
    .param .f64 a;
    .reg .f64 %fd<3>;
    add.f64 %fd1, %fd2, %fd2; // a comment
    add.f32 %f1, %f2, %f2; // .f64
    st.local.v2.u32 [%rd1], {%r1, %r2};
    """
    code = dataclasses.replace(written, ptx=ptx, sass="/*0000*/ LDL.64 R0, [R1] ;")
    assert code.doubles == ["add.f64 %fd1, %fd2, %fd2;"]
    assert code.local == ["st.local.v2.u32 [%rd1], {%r1, %r2};", "LDL.64 R0, [R1]"]


@pytest.fixture(params=ARCHITECTURES)
def compile_for(request):
    from numba import types

    def compile_it(kernel, *dtypes):
        arrays = tuple(getattr(types, dtype)[::1] for dtype in dtypes)
        return cuda_code.compiled(kernel, arrays, request.param)

    return compile_it


@needs_compiler
def test_single_precision(compile_for):
    from numba import cuda

    def add_up(x, out):
        total, i = np.float32(0), cuda.threadIdx.x
        while i < x.size:
            total += x[i]
            i += 256
        out[cuda.threadIdx.x] = total

    code = compile_for(add_up, "float32", "float32")
    assert not code.doubles and not code.local
    assert (code.stack, code.spills, code.shared) == (0, 0, 0)
    assert 0 < code.registers < 64
    assert set(code.loads) == set(code.main_loop_loads()) == {32}
    assert code.stores == Counter({32: 1})
    assert not code.mufu
    decorated = compile_for(cuda.jit(add_up), "float32", "float32")
    assert dataclasses.replace(decorated, ptx="", sass="") == dataclasses.replace(
        code, ptx="", sass=""
    )
    assert decorated.main_loop() == code.main_loop()


@needs_compiler
def test_double_precision_is_found(compile_for):
    from numba import cuda

    def halve(x, out):
        i = cuda.grid(1)
        out[i] = x[i] * 0.3

    code = compile_for(halve, "float32", "float32")
    assert any(line.startswith("mul.f64") for line in code.doubles)
    assert not code.main_loop()


@needs_compiler
def test_wide_loads_of_the_loop_are_found(compile_for):
    from numba import cuda

    def gather(x, places, out):
        total = np.float32(0)
        for i in range(cuda.threadIdx.x, places.size, 256):
            total += x[places[i]]
        out[cuda.threadIdx.x] = total

    loads = compile_for(gather, "float32", "int64", "float32").main_loop_loads()
    assert loads[64] == loads[32] > 0
    assert set(loads) == {32, 64}


@needs_compiler
def test_functions_of_the_special_unit_are_counted(compile_for):
    from numba import cuda

    def power(x, out):
        i = cuda.grid(1)
        out[i] = cuda.libdevice.exp2f(x[i])

    assert compile_for(power, "float32", "float32").mufu == Counter({"EX2": 1})


@needs_compiler
def test_functions_of_a_kernel_are_compiled_without_a_device(compile_for):
    from numba import cuda

    @cuda.jit(device=True, forceinline=True)
    def square(v):
        return v * v

    def squares(x, out):
        i = cuda.grid(1)
        out[i] = square(x[i])

    assert "CALL" not in compile_for(squares, "float32", "float32").sass


@needs_compiler
def test_shared_and_local_memory_are_counted(compile_for):
    from numba import cuda, types

    def scatter(x, places, out):
        shared = cuda.shared.array(128, types.float32)
        own = cuda.local.array(64, types.float32)
        i = cuda.threadIdx.x
        shared[i] = x[i]
        for k in range(64):
            own[places[k]] = x[k]
        cuda.syncthreads()
        out[i] = own[places[i]] + shared[127 - i]

    code = compile_for(scatter, "float32", "int64", "float32")
    assert code.shared == 512
    assert code.stack == 256
    assert any(line.startswith("LDL") for line in code.local)
    assert any(line.startswith("st.local") for line in code.local)
