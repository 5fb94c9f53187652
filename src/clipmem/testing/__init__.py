"""For tests of clipmem and of code that uses it: tiny real studies, and slow loop references of every formula."""
