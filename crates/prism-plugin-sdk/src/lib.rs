//! How any plugin lives under the proxy.
