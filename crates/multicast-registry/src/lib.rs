//! The pattern: directory, coordinator, delivery, data service.
