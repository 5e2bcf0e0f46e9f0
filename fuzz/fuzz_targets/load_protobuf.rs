#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waypost::fuzz::run("load_protobuf", data);
});
