// Marks what the shared library shows to C++ users; everything else is compiled hidden.
#pragma once
#define TILEWRIGHT_API __attribute__((visibility("default")))
