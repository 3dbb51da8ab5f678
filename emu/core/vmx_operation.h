/* What the files of VMX share. */
#ifndef EMU_VMX_OPERATION_H
#define EMU_VMX_OPERATION_H

#include "insn.h"
#include "segment.h"

/* The fields of the current VMCS by name. */
#define VMCS(cpu, name) ((cpu)->vmx.field[name])

static inline uint64_t physical_mask(const CPU *cpu) { return (1ull << cpu->model->physical_bits) - 1; }

/* Control words as they take effect: the secondary one counts where the primary one activates it. */
static inline uint32_t pin_controls(const CPU *cpu) { return (uint32_t)VMCS(cpu, PIN_BASED_VM_EXECUTION_CONTROLS); }
static inline uint32_t proc_controls(const CPU *cpu)
{
    return (uint32_t)VMCS(cpu, PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS);
}
static inline uint32_t proc2_controls(const CPU *cpu)
{
    return proc_controls(cpu) & (uint32_t)PROC_ACTIVATE_SECONDARY_CONTROLS
               ? (uint32_t)VMCS(cpu, SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS)
               : 0;
}
static inline uint32_t exit_controls(const CPU *cpu) { return (uint32_t)VMCS(cpu, VM_EXIT_CONTROLS); }
static inline uint32_t entry_controls(const CPU *cpu) { return (uint32_t)VMCS(cpu, VM_ENTRY_CONTROLS); }

/* vmx_vmcs.c: the current VMCS and its region in memory. */
/* The field of an encoding, -1 where the model has none; HIGH encodings give the field too. */
int vmcs_field(const CPU *cpu, uint64_t encoding);
extern const char *const vmcs_field_names[VMCS_FIELDS];
extern const uint16_t vmcs_field_encodings[VMCS_FIELDS];
bool vmcs_is_read_only(int field);
/* What a field can hold. */
uint64_t vmcs_field_mask(int field);
void vmcs_load(CPU *cpu, uint64_t address);
void vmcs_store(CPU *cpu);
/* Void what is known of checks that passed: a field was written. */
void vmcs_written(CPU *cpu, int field);

/* vmx_state.c: moving the guest's and the host's state between the processor and the VMCS. */
void guest_state_load(CPU *cpu);
void guest_state_save(CPU *cpu);
/* False: the PDPTEs of CR3 are bad, which aborts a VM exit. */
bool host_state_load(CPU *cpu);
void vmx_transition(CPU *cpu, uint32_t kind, uint32_t reason, uint64_t qualification);
/* Entries of an MSR area, SDM Vol. 3, "Loading MSRs": 0, or the number (from 1) of the entry that failed. */
uint32_t msr_area_load(CPU *cpu, uint64_t area, uint32_t count);
uint32_t msr_area_store(CPU *cpu, uint64_t area, uint32_t count);
/* The guest's preemption timer. */
void vmx_timer_start(CPU *cpu);
void vmx_timer_stop(CPU *cpu);

/* vmx_exit.c */
extern const char *const vmx_exit_names[EXIT_REASONS]; /* NULL where no reason has the number */
int vmx_abort(CPU *cpu, uint32_t indicator);

#endif
