/* x87 and XMM state as a whole, and the control words. SDM Vol. 1, "Control Instructions", "Saving and Restoring the x87
 * FPU's State", "FXSAVE and FXRSTOR Instructions". */
#include "exec.h"
#include "segment.h"

/* SDM Vol. 3, "Interrupt 7 - Device Not Available Exception". */
static int check_available(CPU *cpu) { return cpu->cr0 & (CR0_EM | CR0_TS) ? fault_nm(cpu) : STATUS_OK; }

/* Before an instruction that waits: #MF where CR0.NE has it reported so. With NE = 0 the FERR# pin tells the interrupt
 * controller, and IGNNE# lets the instruction run. */
static int check_pending(CPU *cpu)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    return (cpu->fpu.status & FPU_STATUS_ES) && (cpu->cr0 & CR0_NE) ? fault_raise(cpu, VECTOR_MF) : STATUS_OK;
}

/* ES and B follow from the exceptions that the control word lets through. */
static void settle_exceptions(Fpu *fpu)
{
    fpu->status &= (uint16_t)~(FPU_STATUS_ES | FPU_STATUS_BUSY);
    if (fpu->status & ~fpu->control & FPU_EXCEPTIONS)
        fpu->status |= FPU_STATUS_ES | FPU_STATUS_BUSY;
}

static void initialize(Fpu *fpu)
{
    fpu->control = FPU_CONTROL_INIT;
    fpu->status = 0;
    fpu->valid = 0;
    fpu->ip = fpu->dp = 0;
    fpu->cs = fpu->ds = fpu->opcode = 0;
}

/* --- the full tag word: 0 valid, 1 zero, 2 special (infinity, NaN, denormal, unsupported), 3 empty --- */

static unsigned tag_of(const FpuRegister *r)
{
    const unsigned exponent = r->exponent & 0x7fff;
    if (!exponent && !r->significand)
        return 1;
    return exponent && exponent != 0x7fff && r->significand >> 63 ? 0 : 2;
}

static uint16_t tag_word(const Fpu *fpu)
{
    unsigned tags = 0;
    for (unsigned i = 0; i < 8; i++)
        tags |= (fpu->valid >> i & 1 ? tag_of(&fpu->r[i]) : 3) << 2 * i;
    return (uint16_t)tags;
}

static uint8_t valid_of(uint16_t tags)
{
    unsigned valid = 0;
    for (unsigned i = 0; i < 8; i++)
        valid |= ((tags >> 2 * i & 3) != 3) << i;
    return (uint8_t)valid;
}

/* --- images in memory: an area that is moved as a whole once all of it is known to be there --- */

typedef struct Area {
    uint64_t ea, mask;
    unsigned seg;
} Area;

static Area area_of(const CPU *cpu, const Insn *insn)
{
    return (Area){effective_address(cpu, insn), cpu->address_mask[insn->asize], insn->seg};
}

static int read_area(CPU *cpu, Area area, uint8_t *image, unsigned size)
{
    for (unsigned at = 0; at < size; at += 2) {
        if (mem_read(cpu, area.seg, (area.ea + at) & area.mask, 2))
            return STATUS_FAULT;
        store16(image + at, (uint16_t)cpu->data);
    }
    return STATUS_OK;
}

static int write_area(CPU *cpu, Area area, const uint8_t *image, unsigned size)
{
    for (unsigned at = 0; at < size; at += 2)
        if (mem_probe_write(cpu, area.seg, (area.ea + at) & area.mask, 2))
            return STATUS_FAULT;
    for (unsigned at = 0; at < size; at += 2)
        if (mem_write(cpu, area.seg, (area.ea + at) & area.mask, 2, load16(image + at)))
            return STATUS_FAULT;
    return STATUS_OK;
}

/* --- FNSTENV, FLDENV, FNSAVE, FRSTOR: SDM Vol. 1, figures "Protected Mode x87 FPU State Image in Memory" and following --- */

#define ENVIRONMENT_BYTES(wide) ((wide) ? 28u : 14u)
#define REGISTERS_BYTES 80u

static bool is_wide(const Insn *insn) { return insn->osize != OSIZE16; }

/* The seven words or doublewords of the environment. */
static void store_environment(const CPU *cpu, bool wide, uint8_t *image)
{
    const Fpu *fpu = &cpu->fpu;
    const uint32_t ip = (uint32_t)fpu->ip, dp = (uint32_t)fpu->dp;
    uint32_t field[7] = {fpu->control, fpu->status, tag_word(fpu)};
    if (cpu->protected_mode) {
        field[3] = ip;
        field[4] = fpu->cs | (wide ? (uint32_t)fpu->opcode << 16 : 0);
        field[5] = dp;
        field[6] = fpu->ds | (wide ? 0xffff0000 : 0);
    } else {
        const uint32_t code = ip + ((uint32_t)fpu->cs << 4), data = dp + ((uint32_t)fpu->ds << 4);
        field[3] = (code & 0xffff) | (wide ? 0xffff0000 : 0);
        field[4] = (wide ? code >> 16 << 12 : (code >> 16 & 15) << 12) | fpu->opcode;
        field[5] = (data & 0xffff) | (wide ? 0xffff0000 : 0);
        field[6] = wide ? data >> 16 << 12 : (data >> 16 & 15) << 12;
    }
    for (unsigned i = 0; i < 7; i++)
        if (wide)
            store32(image + 4 * i, field[i] | (i < 3 ? 0xffff0000 : 0));
        else
            store16(image + 2 * i, (uint16_t)field[i]);
}

static void load_environment(CPU *cpu, bool wide, const uint8_t *image)
{
    Fpu *fpu = &cpu->fpu;
    uint32_t field[7];
    for (unsigned i = 0; i < 7; i++)
        field[i] = wide ? load32(image + 4 * i) : load16(image + 2 * i);
    fpu->control = (uint16_t)((field[0] & 0x1f3f) | 0x40);
    fpu->status = (uint16_t)field[1];
    fpu->valid = valid_of((uint16_t)field[2]);
    if (cpu->protected_mode) {
        fpu->ip = field[3];
        fpu->cs = (uint16_t)field[4];
        fpu->dp = field[5];
        fpu->ds = (uint16_t)field[6];
        fpu->opcode = wide ? field[4] >> 16 & 0x7ff : 0;
    } else {
        fpu->ip = (field[3] & 0xffff) | field[4] >> 12 << 16;
        fpu->dp = (field[5] & 0xffff) | field[6] >> 12 << 16;
        fpu->cs = fpu->ds = 0;
        fpu->opcode = field[4] & 0x7ff;
    }
    settle_exceptions(fpu);
}

COLD_BODY(exec_fnstenv_m)
{
    uint8_t image[28];
    if (check_available(cpu))
        return STATUS_FAULT;
    store_environment(cpu, is_wide(insn), image);
    if (write_area(cpu, area_of(cpu, insn), image, ENVIRONMENT_BYTES(is_wide(insn))))
        return STATUS_FAULT;
    cpu->fpu.control |= FPU_EXCEPTIONS;
    settle_exceptions(&cpu->fpu);
    return STATUS_OK;
}

COLD_BODY(exec_fldenv_m)
{
    uint8_t image[28];
    if (check_pending(cpu) || read_area(cpu, area_of(cpu, insn), image, ENVIRONMENT_BYTES(is_wide(insn))))
        return STATUS_FAULT;
    load_environment(cpu, is_wide(insn), image);
    return STATUS_OK;
}

COLD_BODY(exec_fnsave_m)
{
    uint8_t image[28 + REGISTERS_BYTES];
    const unsigned first = ENVIRONMENT_BYTES(is_wide(insn));
    if (check_available(cpu))
        return STATUS_FAULT;
    store_environment(cpu, is_wide(insn), image);
    for (unsigned i = 0; i < 8; i++) {
        const FpuRegister *r = fpu_st(&cpu->fpu, i);
        store64(image + first + 10 * i, r->significand);
        store16(image + first + 10 * i + 8, r->exponent);
    }
    if (write_area(cpu, area_of(cpu, insn), image, first + REGISTERS_BYTES))
        return STATUS_FAULT;
    initialize(&cpu->fpu);
    return STATUS_OK;
}

COLD_BODY(exec_frstor_m)
{
    uint8_t image[28 + REGISTERS_BYTES];
    const unsigned first = ENVIRONMENT_BYTES(is_wide(insn));
    if (check_pending(cpu) || read_area(cpu, area_of(cpu, insn), image, first + REGISTERS_BYTES))
        return STATUS_FAULT;
    load_environment(cpu, is_wide(insn), image);
    for (unsigned i = 0; i < 8; i++)
        *fpu_st(&cpu->fpu, i) = (FpuRegister){load64(image + first + 10 * i), load16(image + first + 10 * i + 8)};
    return STATUS_OK;
}

/* --- control and status words --- */

COLD_BODY(exec_fninit)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    initialize(&cpu->fpu);
    return STATUS_OK;
}

COLD_BODY(exec_fnclex)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    cpu->fpu.status &= 0x7f00;
    return STATUS_OK;
}

COLD_BODY(exec_fnstsw_r16)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    SET_R16(RAX * 8, cpu->fpu.status);
    return STATUS_OK;
}

COLD_BODY(exec_fnstsw_m16)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    return mem_write(cpu, insn->seg, effective_address(cpu, insn), 2, cpu->fpu.status);
}

COLD_BODY(exec_fnstcw_m16)
{
    if (check_available(cpu))
        return STATUS_FAULT;
    return mem_write(cpu, insn->seg, effective_address(cpu, insn), 2, cpu->fpu.control);
}

COLD_BODY(exec_fldcw_m16)
{
    if (check_pending(cpu) || mem_read(cpu, insn->seg, effective_address(cpu, insn), 2))
        return STATUS_FAULT;
    cpu->fpu.control = (uint16_t)((cpu->data & 0x1f3f) | 0x40); /* bit 6 reads as 1, the other reserved ones as 0 */
    settle_exceptions(&cpu->fpu);
    return STATUS_OK;
}

/* SDM Vol. 2, "WAIT/FWAIT": unlike the others it heeds MP with TS, and not EM. */
COLD_BODY(exec_wait)
{
    const uint64_t task_switched = CR0_MP | CR0_TS;
    if ((cpu->cr0 & task_switched) == task_switched)
        return fault_nm(cpu);
    return (cpu->fpu.status & FPU_STATUS_ES) && (cpu->cr0 & CR0_NE) ? fault_raise(cpu, VECTOR_MF) : STATUS_OK;
}

/* --- FXSAVE, FXRSTOR --- */

#define FX_BYTES 512u
#define FX_USED 416u /* what lies behind stays as it is */
#define FX_XMM 160u

/* Bits of MXCSR that the model has: denormals-are-zero came with SSE2. */
static uint32_t mxcsr_mask(const CPU *cpu) { return cpu->model->has[SINCE_SSE2] ? 0xffff : 0xffbf; }

/* SDM Vol. 2, "FXSAVE": #UD, #NM, then #GP(0) where the area is not on a boundary of 16 bytes. */
static int check_fx(CPU *cpu, const Insn *insn)
{
    if (cpu->cr0 & CR0_EM)
        return fault_ud(cpu);
    if (cpu->cr0 & CR0_TS)
        return fault_nm(cpu);
    const uint64_t base = cpu->code64 && insn->seg != FS && insn->seg != GS ? 0 : cpu->seg[insn->seg].base;
    return (base + effective_address(cpu, insn)) & 15 ? fault_gp(cpu, 0) : STATUS_OK;
}

static unsigned xmm_count(const CPU *cpu) { return !(cpu->cr4 & CR4_OSFXSR) ? 0 : cpu->code64 ? 16 : 8; }

COLD_BODY(exec_fxsave_m)
{
    const Fpu *fpu = &cpu->fpu;
    const unsigned xmm = xmm_count(cpu);
    uint8_t image[FX_USED] = {0};
    if (check_fx(cpu, insn))
        return STATUS_FAULT;
    store16(image, fpu->control);
    store16(image + 2, fpu->status);
    store16(image + 4, fpu->valid);
    store16(image + 6, fpu->opcode);
    if (insn->osize == OSIZE64) {
        store64(image + 8, fpu->ip);
        store64(image + 16, fpu->dp);
    } else {
        store32(image + 8, (uint32_t)fpu->ip);
        store32(image + 12, fpu->cs);
        store32(image + 16, (uint32_t)fpu->dp);
        store32(image + 20, fpu->ds);
    }
    store32(image + 24, fpu->mxcsr);
    store32(image + 28, mxcsr_mask(cpu));
    for (unsigned i = 0; i < 8; i++) {
        const FpuRegister *r = &fpu->r[(fpu_top(fpu) + i) & 7];
        store64(image + 32 + 16 * i, r->significand);
        store64(image + 40 + 16 * i, r->exponent);
    }
    memcpy(image + FX_XMM, fpu->xmm, 16 * xmm);
    return write_area(cpu, area_of(cpu, insn), image, FX_XMM + 16 * xmm);
}

COLD_BODY(exec_fxrstor_m)
{
    Fpu *fpu = &cpu->fpu;
    uint8_t image[FX_BYTES];
    if (check_fx(cpu, insn) || read_area(cpu, area_of(cpu, insn), image, FX_BYTES))
        return STATUS_FAULT;
    const uint32_t mxcsr = load32(image + 24);
    if ((cpu->cr4 & CR4_OSFXSR) && (mxcsr & ~mxcsr_mask(cpu)))
        return fault_gp(cpu, 0);
    fpu->control = (uint16_t)((load16(image) & 0x1f3f) | 0x40);
    fpu->status = load16(image + 2);
    fpu->valid = image[4];
    fpu->opcode = load16(image + 6) & 0x7ff;
    if (insn->osize == OSIZE64) {
        fpu->ip = load64(image + 8);
        fpu->dp = load64(image + 16);
        fpu->cs = fpu->ds = 0;
    } else {
        fpu->ip = load32(image + 8);
        fpu->cs = load16(image + 12);
        fpu->dp = load32(image + 16);
        fpu->ds = load16(image + 20);
    }
    settle_exceptions(fpu);
    for (unsigned i = 0; i < 8; i++)
        *fpu_st(fpu, i) = (FpuRegister){load64(image + 32 + 16 * i), load16(image + 40 + 16 * i)};
    if (cpu->cr4 & CR4_OSFXSR)
        fpu->mxcsr = mxcsr;
    memcpy(fpu->xmm, image + FX_XMM, 16 * xmm_count(cpu));
    return STATUS_OK;
}
