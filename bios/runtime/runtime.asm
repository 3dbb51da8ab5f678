; The runtime services: a module that runs wherever it lies (runtime.inc). On the bare machine it drives the ports; in a VM the
; same ports are the VM's own, and what is to outlast the VM is asked of the VMM.

        bits 32
        org 0

%include "ports.inc"
%include "vm_abi.inc"
%include "runtime.inc"

; The beginning and the end of a service: the registers that it keeps, and EBX = where the module is.
%macro service 0
        push    ebp
        push    ebx
        push    esi
        push    edi
        call    %%here
%%here: pop     ebx
        sub     ebx, %%here
%endmacro
%macro service_end 0
        pop     edi
        pop     esi
        pop     ebx
        pop     ebp
        ret
%endmacro
%define argument(number) [esp + 20 + (number) * 4]

table:
istruc runtime_table
        at runtime_table.signature,     dd RUNTIME_SIGNATURE_LOW, RUNTIME_SIGNATURE_HIGH
        at runtime_table.revision,      dd RUNTIME_REVISION
        at runtime_table.bytes,         dd RUNTIME_BYTES
        at runtime_table.entries
        dd      reset, status_code, get_time, set_time, get_variable, set_variable, next_variable, set_map, convert
iend

%include "time.inc"
%include "address.inc"
%include "variable_store.inc"

; (kind): resets or turns off. A VM's ports make it an event.
reset:
        service
        mov     eax, argument(0)
        cmp     eax, RUNTIME_OFF
        je      .off
        mov     edx, PORT_RESET
        mov     al, RESET_HARD
        out     dx, al
        mov     al, RESET_HARD | RESET_NOW
        out     dx, al
        jmp     .wait
.off:
        mov     edx, PORT_PM1_CNT
        in      ax, dx
        and     ax, ~(7 << 10)
        or      ax, PM1_SUS_EN
        out     dx, ax
.wait:
        cli
        hlt
        jmp     .wait

; (code): the POST port shows its low byte, the console all of it.
status_code:
        service
        mov     esi, argument(0)
        cmp     dword [ebx + runtime_table.vmm], 0
        jne     .vmm
        mov     eax, esi
        out     PORT_POST, al
        lea     edx, [ebx + text_status]
        call    say
        mov     ecx, 8
.digit:
        rol     esi, 4
        mov     eax, esi
        and     eax, 15
        movzx   eax, byte [ebx + digits + eax]
        call    say_byte
        loop    .digit
        lea     edx, [ebx + text_line]
        call    say
        xor     eax, eax
        jmp     .end
.vmm:
        mov     eax, RUNTIME_STATUS
        call    ask
.end:   service_end

; Asks the VMM.
; In:       EBX = module, EAX = RUNTIME_..., ESI = argument
; Out:      EAX = EFI_...
; Clobbers: ECX
ask:
        push    ebx
        mov     ebx, eax
        mov     eax, VMCALL_RUNTIME
        vmcall
        test    eax, eax
        mov     eax, ebx
        pop     ebx
        jz      .end
        mov     eax, EFI_DEVICE_ERROR
.end:   ret

; In:       EDX = text that ends with 0
; Clobbers: EAX, EDX
say:
        mov     al, [edx]
        inc     edx
        test    al, al
        jz      .end
        call    say_byte
        jmp     say
.end:   ret
; In:       AL = byte. Clobbers: AH
say_byte:
        push    edx
        mov     ah, al
        mov     edx, PORT_COM1 + UART_LSR
.wait:
        in      al, dx
        test    al, LSR_THRE
        jz      .wait
        mov     edx, PORT_COM1 + UART_DATA
        mov     al, ah
        out     dx, al
        pop     edx
        ret

; --- variables ---------------------------------------------------------------------------------------------------------

; (name *, attributes *, bytes *, data *)
get_variable:
        service
        mov     esi, argument(0)
        call    name_take
        jne     .end
        mov     edx, argument(2)
        mov     ecx, RUNTIME_DATA
        cmp     [edx], ecx
        jae     .room
        mov     ecx, [edx]
.room:
        mov     [edi + runtime_request.bytes], ecx
        mov     eax, RUNTIME_GET
        call    variable_do
        mov     edx, argument(2)
        test    eax, eax
        js      .failed
        mov     ecx, [edi + runtime_request.bytes]
        mov     [edx], ecx
        mov     edx, argument(1)
        test    edx, edx
        jz      .data
        mov     esi, [edi + runtime_request.attributes]
        mov     [edx], esi
.data:
        lea     esi, [edi + runtime_request.data]
        mov     edi, argument(3)
        rep movsb
        jmp     .end
.failed:
        cmp     eax, EFI_BUFFER_TOO_SMALL
        jne     .end
        mov     ecx, [edi + runtime_request.bytes]
        mov     [edx], ecx                      ; so many are wanted
.end:   service_end

; (name *, attributes, bytes, data *)
set_variable:
        service
        mov     esi, argument(0)
        call    name_take
        jne     .end
        mov     eax, argument(1)
        mov     [edi + runtime_request.attributes], eax
        mov     ecx, argument(2)
        mov     [edi + runtime_request.bytes], ecx
        mov     eax, EFI_INVALID_PARAMETER
        cmp     ecx, RUNTIME_DATA
        ja      .end
        mov     esi, argument(3)
        push    edi
        add     edi, runtime_request.data
        rep movsb
        pop     edi
        mov     eax, RUNTIME_SET
        call    variable_do
.end:   service_end

; (bytes *, name *)
next_variable:
        service
        mov     esi, argument(1)
        call    name_copy
        jne     .end
        mov     eax, RUNTIME_NEXT
        call    variable_do
        test    eax, eax
        js      .end
        mov     esi, edi
        mov     ecx, -1                         ; the length of the name, with its 0
.length:
        inc     ecx
        cmp     byte [esi + ecx], 0
        jne     .length
        inc     ecx
        mov     edx, argument(0)
        cmp     [edx], ecx
        mov     [edx], ecx
        mov     eax, EFI_BUFFER_TOO_SMALL
        jb      .end
        mov     edi, argument(1)
        rep movsb
        xor     eax, eax
.end:   service_end

; Puts a name into the request; name_take wants one that is not empty.
; In:       EBX = module, ESI = name
; Out:      ZF set: EDI = request. ZF clear: EAX = EFI_INVALID_PARAMETER
; Clobbers: EAX, ECX, ESI
name_take:
        mov     eax, EFI_INVALID_PARAMETER
        test    esi, esi
        jz      name_copy.no
        cmp     byte [esi], 0
        je      name_copy.no
name_copy:
        lea     edi, [ebx + RUNTIME_REQUEST]
        push    edi
        xor     eax, eax
        mov     ecx, RUNTIME_NAME / 4
        rep stosd
        pop     edi
.byte:
        mov     al, [esi + ecx]
        mov     [edi + ecx], al
        inc     ecx
        test    al, al
        jz      .end                            ; ZF set
        cmp     ecx, RUNTIME_NAME
        jb      .byte
        mov     eax, EFI_INVALID_PARAMETER      ; too long
.no:    test    esp, esp                        ; ZF clear
.end:   ret

; In:       EBX = module, EDI = request, EAX = RUNTIME_GET, RUNTIME_SET or RUNTIME_NEXT
; Out:      EAX = EFI_...
; Clobbers: ECX, EDX, ESI
variable_do:
        mov     esi, edi
        cmp     dword [ebx + runtime_table.vmm], 0
        jne     .vmm
        lea     edi, [ebx + RUNTIME_STORE]
        cmp     eax, RUNTIME_SET
        jb      .get
        ja      .next
        call    variable_set
        jmp     .end
.get:   call    variable_get
        jmp     .end
.next:  call    variable_next
.end:   mov     edi, esi
        ret
.vmm:
        mov     esi, [ebx + runtime_table.physical]
        add     esi, RUNTIME_REQUEST
        jmp     ask

digits:
        db      "0123456789ABCDEF"
text_status:
        db      "runtime   status code ", 0
text_line:
        db      13, 10, 0

        align 4
ranges:         dd 0                            ; that set_map has kept; 0 before it
range_table:    times RUNTIME_RANGES * 12 db 0  ; physical, virtual, bytes

        times -($ - $$ > RUNTIME_REQUEST) db 0  ; a negative count where it is too long
