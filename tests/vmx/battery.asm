; A battery of guests for any emulator with VT-x: each is set up by its table of VMCS fields, entered once, and after the VM
; exit the fields of the list `report` are printed on port E9h, a line a guest. Built by test_bochs.py, which appends the
; tables. Entry: the reset vector of a 64 KiB ROM. Memory map: that of vmm.py.
    bits 16
    org 0xF0000
start:
    cli
    o32 lgdt [cs:(gdt_pointer - 0xF0000)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:protected

    bits 32
protected:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, 0x30000
    xor eax, eax                    ; zeros in all that the guests use
    mov edi, 0x1000
    mov ecx, (0x70000 - 0x1000) / 4
    rep stosd
    mov esi, gdt                    ; tables that host and guests share
    mov edi, 0x4000
    mov ecx, (gdt_end - gdt) / 4
    rep movsd
    lgdt [shared_pointer]
    mov word [0x5000 + 102], 0x68
    mov dword [0x40000], 0x83       ; 4 MiB, identity, for host and guests
    mov dword [0x50000], 0x83
    mov dword [0x60000], 0x61007    ; EPT: 2 MiB, identity
    mov dword [0x61000], 0x62007
    mov dword [0x62000], 0xB7
    mov ax, 0x20
    ltr ax
    mov byte [0x4025], 0x8B
    mov eax, cr4
    or eax, 0x2010
    mov cr4, eax
    mov eax, 0x40000
    mov cr3, eax
    mov eax, 0x80000031
    mov cr0, eax
    mov ecx, IA32_FEATURE_CONTROL
    rdmsr
    test al, 1
    jnz .locked
    or al, 5
    wrmsr
.locked:
    mov ecx, IA32_VMX_BASIC
    rdmsr
    mov [0x1000], eax
    mov [0x2000], eax
    vmxon [vmxon_pointer]
    mov ebp, guests
next:
    cmp dword [ebp], 0
    je finished
    mov esi, [ebp]                  ; the guest's code, 128 bytes
    mov edi, 0x20000
    mov ecx, 32
    rep movsd
    vmclear [vmcs_pointer]
    vmptrld [vmcs_pointer]
    mov esi, defaults
    call write_fields
    mov esi, [ebp + 4]
    call write_fields
    mov edx, HOST_RIP
    mov eax, exited
    vmwrite edx, eax
    mov [0xB100], ebp
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor ebp, ebp
    vmlaunch
    mov ebp, [0xB100]               ; VMfail
    mov edx, VM_INSTRUCTION_ERROR
    vmread eax, edx
    call hexadecimal
    mov al, '!'
    out 0xE9, al
    jmp line
exited:
    push ebx                        ; what the guest left in its registers
    push ecx
    push eax
    mov ebp, [0xB100]
    pop eax
    call hexadecimal
    pop eax
    call hexadecimal
    pop eax
    call hexadecimal
    mov esi, report
.read:
    lodsd
    cmp eax, -1
    je line
    mov edx, eax
    vmread eax, edx
    call hexadecimal
    jmp .read
line:
    mov al, 10
    out 0xE9, al
    add ebp, 8
    jmp next

finished:
    mov al, 'E'
    out 0xE9, al
    mov al, 10
    out 0xE9, al
    out 0xF4, al                    ; ends ours
    mov esi, shutdown               ; and Bochs
    mov ecx, 8
    mov dx, 0x8900
    rep outsb
    hlt

; VMWRITEs of the table at ESI: encoding, value; ends with FFFFFFFFh. Clobbers EAX, EDX, ESI.
write_fields:
    lodsd
    cmp eax, -1
    je .done
    mov edx, eax
    lodsd
    vmwrite edx, eax
    jmp write_fields
.done:
    ret

; EAX in hexadecimal and a space. Clobbers EAX, EBX, ECX.
hexadecimal:
    mov ebx, eax
    mov ecx, 8
.digit:
    rol ebx, 4
    mov al, bl
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das
    out 0xE9, al
    loop .digit
    mov al, ' '
    out 0xE9, al
    ret

shutdown: db "Shutdown"
vmxon_pointer: dq 0x1000
vmcs_pointer: dq 0x2000
gdt_pointer: dw gdt_end - gdt - 1
    dd gdt
shared_pointer: dw gdt_end - gdt - 1
    dd 0x4000
    align 8
gdt: dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF, 0x0000890050000067, 0
gdt_end:
report: dd EXIT_REASON, EXIT_QUALIFICATION, GUEST_RIP, GUEST_RSP, GUEST_CR0, GUEST_CR4, GUEST_RFLAGS
    dd VM_EXIT_INTERRUPTION_INFORMATION, IDT_VECTORING_INFORMATION_FIELD, GUEST_INTERRUPTIBILITY_STATE
    dd GUEST_ACTIVITY_STATE, GUEST_CS_SELECTOR, GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS, -1
