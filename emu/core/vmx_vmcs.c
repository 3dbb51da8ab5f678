/* The current VMCS, kept in CPU.vmx, and its region in memory. SDM Vol. 3, "VMCS Data", "Software Access to the VMCS". */
#include "vmx_operation.h"

const char *const vmcs_field_names[VMCS_FIELDS] = {
#define FIELD(name, encoding, width, access, needs) #name,
#include "vmcs.def"
#undef FIELD
};

const uint16_t vmcs_field_encodings[VMCS_FIELDS] = {
#define FIELD(name, encoding, width, access, needs) encoding,
#include "vmcs.def"
#undef FIELD
};

/* Which control, of which word, brings a field. */
enum {
    WORD_OF_ALWAYS = CONTROL_WORDS,
    ALWAYS = 0,
#define CONTROL(word, bit, name) WORD_OF_##word##_##name = WORD_##word,
#include "vmcs.def"
#undef CONTROL
};
static const struct {
    uint8_t word;
    uint32_t control;
} needs[VMCS_FIELDS] = {
#define FIELD(name, encoding, width, access, needs) {WORD_OF_##needs, (uint32_t)needs},
#include "vmcs.def"
#undef FIELD
};

/* Bits of an encoding: 0 high access, 1 to 9 index, 10 and 11 type, 13 and 14 width. */
#define PLACE(encoding) (((encoding) >> 13 & 3) << 7 | ((encoding) >> 10 & 3) << 5 | ((encoding) >> 1 & 31))
#define TYPE_OF(encoding) ((encoding) >> 10 & 3)
#define TYPE_CONTROL 0
#define TYPE_HOST 3
#define WIDTH_OF(encoding) ((encoding) >> 13 & 3)
static const uint8_t field_at[512] = {
#define FIELD(name, encoding, width, access, needs) [PLACE(encoding)] = name + 1,
#include "vmcs.def"
#undef FIELD
};

int vmcs_field(const CPU *cpu, uint64_t encoding)
{
    const bool high = encoding & 1;
    if (encoding & ~0x6c3full || (high && WIDTH_OF(encoding) != 1))
        return -1;
    const int field = field_at[PLACE(encoding)] - 1;
    if (field < 0)
        return -1;
    const unsigned word = needs[field].word;
    return word == CONTROL_WORDS || (cpu->model->vmx.allowed[word] & needs[field].control) ? field : -1;
}

uint64_t vmcs_highest_index(const CPU *cpu)
{
    uint64_t highest = 0;
    for (int i = 0; i < VMCS_FIELDS; i++)
        if (vmcs_field(cpu, vmcs_field_encodings[i]) >= 0 && (vmcs_field_encodings[i] & 0x3feu) > highest)
            highest = vmcs_field_encodings[i] & 0x3feu;
    return highest;
}

bool vmcs_is_read_only(int field) { return TYPE_OF(vmcs_field_encodings[field]) == 1; }

uint64_t vmcs_field_mask(int field)
{
    static const uint64_t masks[] = {0xffff, UINT64_MAX, 0xffffffff, UINT64_MAX};
    return masks[WIDTH_OF(vmcs_field_encodings[field])];
}

void vmcs_written(CPU *cpu, int field)
{
    const unsigned type = TYPE_OF(vmcs_field_encodings[field]);
    if (type == TYPE_CONTROL)
        cpu->vmx.controls_passed = cpu->vmx.host_passed = 0;
    else if (type == TYPE_HOST)
        cpu->vmx.host_passed = 0;
}

void vmcs_load(CPU *cpu, uint64_t address)
{
    uint8_t region[VMCS_FIELDS_AT + 8 * VMCS_FIELDS];
    bus_read_block(cpu->bus, address, region, sizeof region);
    memcpy(&cpu->vmx.launched, region + VMCS_LAUNCH_AT, 4);
    for (int i = 0; i < VMCS_FIELDS; i++) {
        memcpy(&cpu->vmx.field[i], region + VMCS_FIELDS_AT + 8 * i, 8);
        cpu->vmx.field[i] &= vmcs_field_mask(i);
    }
    cpu->vmx.current = address;
    cpu->vmx.controls_passed = cpu->vmx.host_passed = 0;
}

void vmcs_store(CPU *cpu)
{
    uint8_t image[VMCS_FIELDS_AT - VMCS_LAUNCH_AT + 8 * VMCS_FIELDS] = {0};
    if (cpu->vmx.current == VMCS_NONE)
        return;
    memcpy(image, &cpu->vmx.launched, 4);
    memcpy(image + VMCS_FIELDS_AT - VMCS_LAUNCH_AT, cpu->vmx.field, 8 * VMCS_FIELDS);
    bus_write_block(cpu->bus, cpu->vmx.current + VMCS_LAUNCH_AT, image, sizeof image);
}
