; single-line macros that stand before others of their names
%define f 1
%idefine f 2
db f, F
%undef f
%ifdef f
%error f
%endif
%idefine g 3
%define G 4
db g, G
%define h(a) a
%idefine h(a,b) a+b
%idefine h(a) a+1
db h(1), h(1,2), H(3)
%define k(a,b+) a
%define k(a,b,c) c
db k(1,2), k(1,2,3), k(1,2,3,4)
