#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mykube_fuzz::run("transports", data));
