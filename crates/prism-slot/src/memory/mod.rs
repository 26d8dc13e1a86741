//! The memory slots: the embedded default, and the oracle that other slots are compared with.
