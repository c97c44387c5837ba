#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xds_tests::fuzz::forwarded(bytes));
