//! Black-box tests of landbridge.
