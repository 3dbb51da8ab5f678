/* Segment registers and descriptors as operands: MOV, PUSH, POP, LDS and its like, LAR, LSL, VERR, VERW, ARPL, and the
 * selectors of LDT and task. SDM Vol. 3, "Protection", "Pointer Validation". */
#include "exec.h"
#include "segment.h"

/* Bytes of a stack slot or offset of the instruction's operand size. */
static unsigned operand_bytes(const Insn *insn) { return 2u << insn->osize; }

/* The operand's address plus `distance`, cut to the address size. */
static uint64_t address_after(const CPU *cpu, const Insn *insn, unsigned distance)
{
    return (effective_address(cpu, insn) + distance) & cpu->address_mask[insn->asize];
}

static int read_operand16(CPU *cpu, const Insn *insn, uint16_t *value)
{
    if (mem_read(cpu, insn->seg, effective_address(cpu, insn), 2))
        return STATUS_FAULT;
    *value = (uint16_t)cpu->data;
    return STATUS_OK;
}

/* SDM Vol. 3, "Masking Exceptions and Interrupts When Switching Stacks": not LSS, which loads both halves at once. */
static int after_load(CPU *cpu, const Insn *insn, unsigned index)
{
    if (insn->memory)
        charge_case(cpu, insn, cpu->protected_mode ? CASE_PROTECTED_MEMORY : CASE_REAL_MEMORY);
    else
        charge_case(cpu, insn, cpu->protected_mode ? CASE_PROTECTED : CASE_REAL);
    if (index != SS)
        return STATUS_OK;
    cpu->shadow = SHADOW_MOV_SS;
    return STATUS_LOOK;
}

static int move_to_segment(CPU *cpu, const Insn *insn, uint16_t selector)
{
    if (segment_load(cpu, insn->dst, selector))
        return STATUS_FAULT;
    return after_load(cpu, insn, insn->dst);
}

COLD_BODY(exec_mov_s_r16)
{
    return insn->dst == CS ? fault_ud(cpu) : move_to_segment(cpu, insn, R16(insn->src));
}

COLD_BODY(exec_mov_s_m16)
{
    uint16_t selector;
    if (insn->dst == CS)
        return fault_ud(cpu);
    if (read_operand16(cpu, insn, &selector))
        return STATUS_FAULT;
    return move_to_segment(cpu, insn, selector);
}

#define MOVE_FROM_SEGMENT(bits) \
    REGISTER_BODY(exec_mov_r##bits##_s) { SET_R##bits(insn->dst, cpu->seg[insn->src].selector); NEXT; }
MOVE_FROM_SEGMENT(16)
MOVE_FROM_SEGMENT(32)
MOVE_FROM_SEGMENT(64)

MEMORY_BODY(exec_mov_m16_s) { STORE(16, cpu->seg[insn->dst].selector); NEXT; }

/* Of a 32-bit slot the selector's 16 bits alone are written, as recent processors do (SDM Vol. 2, "PUSH"). */
COLD_BODY(exec_push_s)
{
    const unsigned size = operand_bytes(insn);
    const uint64_t sp = (cpu->r[RSP] - size) & cpu->sp_mask;
    if (mem_write(cpu, SS, sp, size == 8 ? 8 : 2, cpu->seg[insn->dst].selector))
        return STATUS_FAULT;
    set_sp(cpu, sp);
    return STATUS_OK;
}

COLD_BODY(exec_pop_s)
{
    const unsigned size = operand_bytes(insn);
    Stack stack = stack_current(cpu, 0);
    uint64_t selector;
    if (stack_pop(cpu, &stack, size == 8 ? 8 : 2, &selector) || segment_load(cpu, insn->dst, (uint16_t)selector))
        return STATUS_FAULT;
    stack.sp = cpu->r[RSP] + size;
    stack_commit(cpu, &stack); /* by the old stack's size, also of POP SS */
    return after_load(cpu, insn, insn->dst);
}

static int load_far_pointer(CPU *cpu, const Insn *insn, unsigned index)
{
    const unsigned size = operand_bytes(insn);
    if (mem_read(cpu, insn->seg, effective_address(cpu, insn), size))
        return STATUS_FAULT;
    const uint64_t offset = cpu->data;
    if (mem_read(cpu, insn->seg, address_after(cpu, insn, size), 2))
        return STATUS_FAULT;
    if (segment_load(cpu, index, (uint16_t)cpu->data))
        return STATUS_FAULT;
    if (size == 2)
        SET_R16(insn->dst, offset);
    else
        SET_R64(insn->dst, offset);
    charge_case(cpu, insn, cpu->protected_mode ? CASE_PROTECTED : CASE_REAL);
    return index == SS ? STATUS_LOOK : STATUS_OK;
}

#define LOAD_FAR_POINTER(name, index) \
    COLD_BODY(exec_##name) { return load_far_pointer(cpu, insn, index); }
LOAD_FAR_POINTER(les_r16_mfar, ES)
LOAD_FAR_POINTER(les_r32_mfar, ES)
LOAD_FAR_POINTER(lds_r16_mfar, DS)
LOAD_FAR_POINTER(lds_r32_mfar, DS)
LOAD_FAR_POINTER(lss_r16_mfar, SS)
LOAD_FAR_POINTER(lss_r32_mfar, SS)
LOAD_FAR_POINTER(lss_r64_mfar, SS)
LOAD_FAR_POINTER(lfs_r16_mfar, FS)
LOAD_FAR_POINTER(lfs_r32_mfar, FS)
LOAD_FAR_POINTER(lfs_r64_mfar, FS)
LOAD_FAR_POINTER(lgs_r16_mfar, GS)
LOAD_FAR_POINTER(lgs_r32_mfar, GS)
LOAD_FAR_POINTER(lgs_r64_mfar, GS)

/* --- LAR, LSL, VERR, VERW: 1 where the selector may be used so, 0 where not, or STATUS_FAULT --- */

static bool privileged_enough(const CPU *cpu, uint16_t selector, const Descriptor *d)
{
    return is_conforming(d) || (cpu->cpl <= descriptor_dpl(d) && rpl_of(selector) <= descriptor_dpl(d));
}

static int look_up(CPU *cpu, uint16_t selector, Descriptor *d)
{
    return is_null(selector) ? 0 : descriptor_lookup(cpu, selector, d);
}

static int query_access_rights(CPU *cpu, uint16_t selector, Descriptor *d)
{
    const unsigned legacy = 1u << TYPE_TSS16 | 1u << TYPE_TSS16_BUSY | 1u << TYPE_CALL_GATE16 | 1u << TYPE_TASK_GATE;
    const unsigned valid = 1u << TYPE_LDT | 1u << TYPE_TSS32 | 1u << TYPE_TSS32_BUSY | 1u << TYPE_CALL_GATE32;
    const int found = look_up(cpu, selector, d);
    if (found <= 0)
        return found;
    if (is_system(d) && !((cpu->long_mode ? valid : valid | legacy) >> descriptor_type(d) & 1))
        return 0;
    return privileged_enough(cpu, selector, d);
}

static int query_limit(CPU *cpu, uint16_t selector, Descriptor *d)
{
    const unsigned legacy = 1u << TYPE_TSS16 | 1u << TYPE_TSS16_BUSY;
    const unsigned valid = 1u << TYPE_LDT | 1u << TYPE_TSS32 | 1u << TYPE_TSS32_BUSY;
    const int found = look_up(cpu, selector, d);
    if (found <= 0)
        return found;
    if (is_system(d) && !((cpu->long_mode ? valid : valid | legacy) >> descriptor_type(d) & 1))
        return 0;
    return privileged_enough(cpu, selector, d);
}

static int query_readable(CPU *cpu, uint16_t selector, Descriptor *d)
{
    const int found = look_up(cpu, selector, d);
    return found <= 0 ? found : is_readable(d) && privileged_enough(cpu, selector, d);
}

static int query_writable(CPU *cpu, uint16_t selector, Descriptor *d)
{
    const int found = look_up(cpu, selector, d);
    return found <= 0 ? found : is_writable_data(d) && privileged_enough(cpu, selector, d);
}

static int set_zf(CPU *cpu, bool value)
{
    cpu_set_flags(cpu, value ? FLAG_ZF : 0, FLAG_ZF);
    return STATUS_OK;
}

/* Of LSL: the fixed part is that of a limit in pages. */
static uint32_t limit_found(CPU *cpu, const Insn *insn, const Descriptor *d)
{
    if (!(d->access & AR_G))
        cpu->clock->left += cpu->clocks[insn->row].variable;
    return d->limit;
}

/* The destination is written where ZF is set alone. */
#define QUERY_REGISTER(name, bits, query, value, selector_from)                  \
    COLD_BODY(exec_##name)                                                       \
    {                                                                            \
        Descriptor d;                                                            \
        uint16_t selector;                                                       \
        if (selector_from)                                                       \
            return STATUS_FAULT;                                                 \
        const int valid = query(cpu, selector, &d);                              \
        if (valid < 0)                                                           \
            return valid;                                                        \
        if (valid)                                                               \
            SET_R##bits(insn->dst, value);                                       \
        return set_zf(cpu, valid);                                               \
    }
#define FROM_REGISTER(field) (selector = R16(insn->field), 0)
#define FROM_MEMORY read_operand16(cpu, insn, &selector)
#define ACCESS_RIGHTS (d.high & 0x00ffff00)
#define LIMIT limit_found(cpu, insn, &d)

QUERY_REGISTER(lar_r16_r16, 16, query_access_rights, ACCESS_RIGHTS, FROM_REGISTER(src))
QUERY_REGISTER(lar_r32_r32, 32, query_access_rights, ACCESS_RIGHTS, FROM_REGISTER(src))
QUERY_REGISTER(lar_r64_r32, 64, query_access_rights, ACCESS_RIGHTS, FROM_REGISTER(src))
QUERY_REGISTER(lar_r16_m16, 16, query_access_rights, ACCESS_RIGHTS, FROM_MEMORY)
QUERY_REGISTER(lar_r32_m16, 32, query_access_rights, ACCESS_RIGHTS, FROM_MEMORY)
QUERY_REGISTER(lar_r64_m16, 64, query_access_rights, ACCESS_RIGHTS, FROM_MEMORY)
QUERY_REGISTER(lsl_r16_r16, 16, query_limit, LIMIT, FROM_REGISTER(src))
QUERY_REGISTER(lsl_r32_r32, 32, query_limit, LIMIT, FROM_REGISTER(src))
QUERY_REGISTER(lsl_r64_r32, 64, query_limit, LIMIT, FROM_REGISTER(src))
QUERY_REGISTER(lsl_r16_m16, 16, query_limit, LIMIT, FROM_MEMORY)
QUERY_REGISTER(lsl_r32_m16, 32, query_limit, LIMIT, FROM_MEMORY)
QUERY_REGISTER(lsl_r64_m16, 64, query_limit, LIMIT, FROM_MEMORY)

#define QUERY(name, query, selector_from)                                        \
    COLD_BODY(exec_##name)                                                       \
    {                                                                            \
        Descriptor d;                                                            \
        uint16_t selector;                                                       \
        if (selector_from)                                                       \
            return STATUS_FAULT;                                                 \
        const int valid = query(cpu, selector, &d);                              \
        return valid < 0 ? valid : set_zf(cpu, valid);                           \
    }
QUERY(verr_r16, query_readable, FROM_REGISTER(dst))
QUERY(verr_m16, query_readable, FROM_MEMORY)
QUERY(verw_r16, query_writable, FROM_REGISTER(dst))
QUERY(verw_m16, query_writable, FROM_MEMORY)

COLD_BODY(exec_arpl_r16_r16)
{
    const unsigned rpl = rpl_of(R16(insn->src));
    const bool adjust = rpl_of(R16(insn->dst)) < rpl;
    if (adjust)
        SET_R16(insn->dst, (R16(insn->dst) & 0xfffc) | rpl);
    return set_zf(cpu, adjust);
}

/* A selector that stays as it is is not written: the destination may be read-only then, as real processors have it. */
COLD_BODY(exec_arpl_m16_r16)
{
    const uint64_t ea = effective_address(cpu, insn);
    const unsigned rpl = rpl_of(R16(insn->dst));
    if (mem_read(cpu, insn->seg, ea, 2))
        return STATUS_FAULT;
    const uint16_t selector = (uint16_t)cpu->data;
    const bool adjust = rpl_of(selector) < rpl;
    if (adjust && mem_write(cpu, insn->seg, ea, 2, (selector & 0xfffcu) | rpl))
        return STATUS_FAULT;
    return set_zf(cpu, adjust);
}

/* --- LDTR and TR --- */

/* SDM Vol. 3, "Control Registers": CR4.UMIP. */
static bool forbidden_by_umip(const CPU *cpu) { return (cpu->cr4 & CR4_UMIP) && cpu->cpl > 0; }

static bool exits_on_ldtr_or_tr(CPU *cpu, const Insn *insn, unsigned which)
{
    if (!guest_proc2(cpu, PROC2_DESCRIPTOR_TABLE_EXITING))
        return false;
    vm_exit_instruction(cpu, EXIT_REASON_ACCESS_TO_LDTR_OR_TR, insn->memory ? vm_exit_displacement(cpu, insn) : 0);
    cpu->exit.details = (uint8_t)which;
    return true;
}

#define STORE_SELECTOR(name, index)                                                                       \
    COLD_BODY(exec_##name##_r16) { return store_selector_register(cpu, insn, index); }                    \
    COLD_BODY(exec_##name##_r32) { return store_selector_register(cpu, insn, index); }                    \
    COLD_BODY(exec_##name##_r64) { return store_selector_register(cpu, insn, index); }                    \
    COLD_BODY(exec_##name##_m16)                                                                          \
    {                                                                                                     \
        if (forbidden_by_umip(cpu))                                                                       \
            return fault_gp(cpu, 0);                                                                      \
        if (exits_on_ldtr_or_tr(cpu, insn, (index) == TR))                                                \
            return STATUS_VMEXIT;                                                                         \
        return mem_write(cpu, insn->seg, effective_address(cpu, insn), 2, cpu->seg[index].selector);      \
    }

static int store_selector_register(CPU *cpu, const Insn *insn, unsigned index)
{
    if (forbidden_by_umip(cpu))
        return fault_gp(cpu, 0);
    if (exits_on_ldtr_or_tr(cpu, insn, index == TR))
        return STATUS_VMEXIT;
    if (insn->osize == OSIZE16)
        SET_R16(insn->dst, cpu->seg[index].selector);
    else
        SET_R64(insn->dst, cpu->seg[index].selector);
    return STATUS_OK;
}

STORE_SELECTOR(sldt, LDTR)
STORE_SELECTOR(str, TR)

/* The upper half of a descriptor of 16 bytes; the base must be canonical, as that of any register (SDM Vol. 3,
 * "Canonical Addressing"). */
static int fetch_base_of_64_bits(CPU *cpu, uint16_t selector, Descriptor *d)
{
    if (!cpu->long_mode)
        return STATUS_OK;
    if (descriptor_fetch_upper(cpu, selector, VECTOR_GP, 0, d))
        return STATUS_FAULT;
    return is_canonical(d->base) ? STATUS_OK : fault_gp(cpu, selector_error(selector, 0));
}

static int load_ldtr(CPU *cpu, uint16_t selector)
{
    Descriptor d;
    if (is_null(selector)) {
        segment_set_null(cpu, LDTR, selector);
        return STATUS_OK;
    }
    if (selector & ERROR_TI)
        return fault_gp(cpu, selector_error(selector, 0));
    if (descriptor_fetch(cpu, selector, VECTOR_GP, 0, &d))
        return STATUS_FAULT;
    if (!is_system(&d) || descriptor_type(&d) != TYPE_LDT)
        return fault_gp(cpu, selector_error(selector, 0));
    if (!is_present(&d))
        return fault_np(cpu, selector_error(selector, 0));
    if (fetch_base_of_64_bits(cpu, selector, &d))
        return STATUS_FAULT;
    segment_set(cpu, LDTR, selector, &d);
    return STATUS_OK;
}

static int load_tr(CPU *cpu, uint16_t selector)
{
    Descriptor d;
    if (is_null(selector))
        return fault_gp(cpu, 0);
    if (selector & ERROR_TI)
        return fault_gp(cpu, selector_error(selector, 0));
    if (descriptor_fetch(cpu, selector, VECTOR_GP, 0, &d))
        return STATUS_FAULT;
    const unsigned type = descriptor_type(&d);
    if (!is_system(&d) || !(type == TYPE_TSS32 || (type == TYPE_TSS16 && !cpu->long_mode)))
        return fault_gp(cpu, selector_error(selector, 0));
    if (!is_present(&d))
        return fault_np(cpu, selector_error(selector, 0));
    if (fetch_base_of_64_bits(cpu, selector, &d))
        return STATUS_FAULT;
    if (descriptor_set_type(cpu, selector, &d, type | 2)) /* busy */
        return STATUS_FAULT;
    segment_set(cpu, TR, selector, &d);
    return STATUS_OK;
}

#define LOAD_SYSTEM_SEGMENT(name, load, which)                           \
    COLD_BODY(exec_##name##_r16)                                         \
    {                                                                    \
        if (cpu->cpl)                                                    \
            return fault_gp(cpu, 0);                                     \
        if (exits_on_ldtr_or_tr(cpu, insn, which))                       \
            return STATUS_VMEXIT;                                        \
        return load(cpu, R16(insn->dst));                                \
    }                                                                    \
    COLD_BODY(exec_##name##_m16)                                         \
    {                                                                    \
        uint16_t selector;                                               \
        if (cpu->cpl)                                                    \
            return fault_gp(cpu, 0);                                     \
        if (exits_on_ldtr_or_tr(cpu, insn, which))                       \
            return STATUS_VMEXIT;                                        \
        if (read_operand16(cpu, insn, &selector))                        \
            return STATUS_FAULT;                                         \
        return load(cpu, selector);                                      \
    }
LOAD_SYSTEM_SEGMENT(lldt, load_ldtr, 2)
LOAD_SYSTEM_SEGMENT(ltr, load_tr, 3)
