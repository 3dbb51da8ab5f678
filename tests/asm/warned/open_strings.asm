; strings without an end in conditions
%ifempty '
%endif
%ifempty 'abc
%elifempty "x
%endif
%ifid `x
  db 1
%else
  db 2
%endif
%ifnstr 'x
%endif
%if 0
  %ifempty '
  %endif
%else
  %else
%endif
%if 0
  %if 1
  %else
  %else
  %endif
%endif
