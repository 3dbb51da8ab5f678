# The state of x87 and SIMD as named plain values.

cdef extern from "emu/core/fpu.h" nogil:
    ctypedef struct FpuRegister:
        uint64_t significand
        uint16_t exponent
    ctypedef union XmmRegister:
        uint64_t qword[2]
    ctypedef struct Fpu:
        FpuRegister r[8]
        uint64_t ip
        uint64_t dp
        uint16_t cs
        uint16_t ds
        uint16_t opcode
        uint16_t control
        uint16_t status
        uint8_t valid
        uint32_t mxcsr
        XmmRegister xmm[16]


cdef dict fpu_save(const Fpu *fpu):
    return {
        "r": [(fpu.r[i].significand, fpu.r[i].exponent) for i in range(8)],
        "xmm": [(fpu.xmm[i].qword[0], fpu.xmm[i].qword[1]) for i in range(16)],
        "ip": fpu.ip, "dp": fpu.dp, "cs": fpu.cs, "ds": fpu.ds, "opcode": fpu.opcode,
        "control": fpu.control, "status": fpu.status, "valid": fpu.valid, "mxcsr": fpu.mxcsr,
    }


cdef int fpu_load(Fpu *fpu, dict state) except -1:
    for i, (significand, exponent) in zip(range(8), state["r"], strict=True):
        fpu.r[<int>i] = FpuRegister(significand, exponent)
    for i, (low, high) in zip(range(16), state["xmm"], strict=True):
        fpu.xmm[<int>i].qword[0] = low
        fpu.xmm[<int>i].qword[1] = high
    fpu.ip, fpu.dp, fpu.cs, fpu.ds = state["ip"], state["dp"], state["cs"], state["ds"]
    fpu.opcode, fpu.control, fpu.status = state["opcode"], state["control"], state["status"]
    fpu.valid, fpu.mxcsr = state["valid"], state["mxcsr"]
    return 0
