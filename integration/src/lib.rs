//! Whole-system tests: real binaries, real servers, injected faults.
