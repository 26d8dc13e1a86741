//! The filter language: syntax tree, JSON form, limits, typed evaluation.
