; struc, istruc, at, align and alignb.
struc point
.x:     resd 1
.y:     resd 1
.name   resb 3
        alignb 4
.flags: resw 1
endstruc
struc node, 8
node_next: resd 1
node_data: resb point_size
endstruc
struc empty
endstruc
p1:     istruc point
        at point.x, dd 1
        at point.y, dd 2
        at point.name, db 'ab'
        at point.flags, dw 0x1234
        iend
p2:     istruc point
        at .y, dd 7
        iend
        dw point_size, node_size, node_next, node_data, empty_size, point.flags, point
        mov eax, [bx + point.y]
        mov eax, [ebx + node_data + point.flags]
        mov word [p1 + point.flags], 5
        align 8
        db 1
        align 16, db 0xcc
        db 2
        alignb 8
        db 3
        align 4, int3
        db 4
        align 2
        align 1
