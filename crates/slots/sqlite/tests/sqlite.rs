//! What the conformance suite cannot know: how the slots behave when a disk is full, files are
//! replaced and others use the same file.

#[cfg(test)]
mod sqlite {
    mod child;
    mod clocks;
    mod deadlines;
    mod disk;
    mod full;
    mod inbox_oracle;
    mod openings;
    mod processes;
    mod registry_oracle;
    mod replaced;
    mod sessions;
    mod setup;
    mod support;
}
