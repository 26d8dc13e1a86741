//! What both ends of the control stream share.

pub mod failure;
