; What stands behind the name of a macro is expanded when it is defined: counts, defaults, names of a context that ends.
%define count 2
%macro bytes count
        db %1, %2
%endmacro
        bytes 1, 2

%define value 5
%macro one 0-1 value
        db %1
%endmacro
%define value 6
        one
        one value

%define both(x) x, 7
%macro several 0-3 both(value), 8
        db %0, %1, %3
%endmacro
        several

%macro family 2-*
    %push family
    %xdefine %$prefix %1
    %rep %0 - 1
        %macro %$prefix%2 1-3 %$prefix, %2
            %ifidn %3, us
        db %1, %{2}132%3
            %else
        dw %1, %{2}213%3
            %endif
        %endmacro
        %rotate 1
    %endrep
    %pop
%endmacro
add132us equ 9
add213ss equ 10
        family add, us, ss
        addus 1
        addss 2
        %push other
        %define %$prefix 77
        addss 3
        %pop
