/* The VMX instructions. CR4.VMXE cannot be set, so VMXON and with it all the others are undefined: SDM Vol. 3, "Enabling
 * and Entering VMX Operation". */
#include "exec.h"

#define UNDEFINED(name) REGISTER_BODY(exec_##name) { GO(exec_undefined); }
UNDEFINED(vmcall)
UNDEFINED(vmlaunch)
UNDEFINED(vmresume)
UNDEFINED(vmxoff)
UNDEFINED(vmfunc)
UNDEFINED(vmxon_m64)
UNDEFINED(vmclear_m64)
UNDEFINED(vmptrld_m64)
UNDEFINED(vmptrst_m64)
UNDEFINED(vmread_r32_r32)
UNDEFINED(vmread_m32_r32)
UNDEFINED(vmread_r64_r64)
UNDEFINED(vmread_m64_r64)
UNDEFINED(vmwrite_r32_r32)
UNDEFINED(vmwrite_r32_m32)
UNDEFINED(vmwrite_r64_r64)
UNDEFINED(vmwrite_r64_m64)
UNDEFINED(invept_r32_m)
UNDEFINED(invept_r64_m)
UNDEFINED(invvpid_r32_m)
UNDEFINED(invvpid_r64_m)
