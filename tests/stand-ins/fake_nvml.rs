//! A stand-in for NVIDIA's management library (`libnvidia-ml.so.1`), for tests and trials.
//!
//! ```sh
//! rustc --edition 2024 --crate-type cdylib -O -o libnvidia-ml.so.1 tests/stand-ins/fake_nvml.rs
//! ```
//!
//! Point fitwatch at it with `nvml_library` in the config. The GPUs come from a state file that is
//! read anew on every call, so that they change while fitwatch runs. It is the file
//! `<library>.state` beside the library (`libnvidia-ml.so.1.state`) where there is one, else the
//! file that the environment variable `FAKE_NVML` names; without any, the driver is "not loaded".
//! A machine with one GPU of 24 GB:
//!
//! ```text
//! driver 580.95
//! gpu NVIDIA_GeForce_RTX_4090 25757220864 3000000000 400000000 0 0000:01:00.0
//! ```
//!
//! | line | means |
//! | --- | --- |
//! | `driver VERSION` | the driver's version |
//! | `gpu NAME TOTAL USED RESERVED THROTTLE [ADDRESS]` | a GPU; `_` in the name stands for a space, sizes in bytes |
//! | `proc GPU PID USED [g]` | a process on a GPU (`na` = not available); `g` = graphics |
//! | `fail SYMBOL CODE` | this function returns this NVML code |
//! | `fail SYMBOL CODE GPU` | the same for one GPU only, counted from 0 |
//! | `record` | append the name of every function called to `<state file>.calls` |
//!
//! Built with `--cfg old_driver` it lacks `nvmlDeviceGetMemoryInfo_v2`, as drivers before 510 do.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

const SUCCESS: c_int = 0;
const NOT_FOUND: c_int = 6;
const INVALID_ARGUMENT: c_int = 2;
const INSUFFICIENT_SIZE: c_int = 7;
const DRIVER_NOT_LOADED: c_int = 9;
const GPU_IS_LOST: c_int = 15;
const ARGUMENT_VERSION_MISMATCH: c_int = 25;

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
pub struct Process {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

#[derive(Default)]
struct State {
    driver: String,
    gpus: Vec<Gpu>,
    processes: Vec<(usize, u32, u64, bool)>,
    failures: Vec<(String, c_int, Option<usize>)>,
}

struct Gpu {
    name: String,
    total: u64,
    used: u64,
    reserved: u64,
    throttle: u64,
    address: String,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    call("nvmlInit_v2", |_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    call("nvmlShutdown", |_| SUCCESS);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_: c_int) -> *const c_char {
    c"an error of the stand-in".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, size: c_uint) -> c_int {
    call("nvmlSystemGetDriverVersion", |state| unsafe { put(&state.driver, text, size) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    call("nvmlDeviceGetCount_v2", |state| {
        unsafe { *count = state.gpus.len() as c_uint }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut *mut c_void) -> c_int {
    let handle = handle(index as usize);
    call_gpu("nvmlDeviceGetHandleByIndex_v2", handle, INVALID_ARGUMENT, |_, _| {
        unsafe { *device = handle }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut *mut c_void) -> c_int {
    let address = unsafe { CStr::from_ptr(address) }.to_string_lossy().into_owned();
    let index = state().ok().and_then(|state| state.gpus.iter().position(|gpu| gpu.address == address));
    let handle = handle(index.unwrap_or(usize::MAX - 1));
    call_gpu("nvmlDeviceGetHandleByPciBusId_v2", handle, NOT_FOUND, |_, _| {
        unsafe { *device = handle }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: *mut c_void, text: *mut c_char, size: c_uint) -> c_int {
    call_gpu("nvmlDeviceGetName", device, GPU_IS_LOST, |_, gpu| unsafe { put(&gpu.name, text, size) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: *mut c_void, text: *mut c_char, size: c_uint) -> c_int {
    let uuid = format!("GPU-fake-{}", number(device));
    call_gpu("nvmlDeviceGetUUID", device, GPU_IS_LOST, |_, _| unsafe { put(&uuid, text, size) })
}

#[cfg(not(old_driver))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: *mut c_void, memory: *mut Memory) -> c_int {
    call_gpu("nvmlDeviceGetMemoryInfo_v2", device, GPU_IS_LOST, |_, gpu| {
        let memory = unsafe { &mut *memory };
        if memory.version != (size_of::<Memory>() as u32 | 2 << 24) {
            return ARGUMENT_VERSION_MISMATCH;
        }
        memory.total = gpu.total;
        memory.used = gpu.used;
        memory.reserved = gpu.reserved;
        memory.free = gpu.total.saturating_sub(gpu.used + gpu.reserved);
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: *mut c_void,
    reasons: *mut c_ulonglong,
) -> c_int {
    call_gpu("nvmlDeviceGetCurrentClocksThrottleReasons", device, GPU_IS_LOST, |_, gpu| {
        unsafe { *reasons = gpu.throttle }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    list: *mut Process,
) -> c_int {
    unsafe { processes("nvmlDeviceGetComputeRunningProcesses_v3", device, count, list, false) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    list: *mut Process,
) -> c_int {
    unsafe { processes("nvmlDeviceGetGraphicsRunningProcesses_v3", device, count, list, true) }
}

unsafe fn processes(
    symbol: &str,
    device: *mut c_void,
    count: *mut c_uint,
    list: *mut Process,
    graphics: bool,
) -> c_int {
    call_gpu(symbol, device, GPU_IS_LOST, |state, _| {
        let on_it = |process: &&(usize, u32, u64, bool)| process.0 == number(device) && process.3 == graphics;
        let found: Vec<_> = state.processes.iter().filter(on_it).collect();
        let room = unsafe { *count } as usize;
        unsafe { *count = found.len() as c_uint }
        if found.is_empty() {
            return SUCCESS;
        }
        if room < found.len() || list.is_null() {
            return INSUFFICIENT_SIZE;
        }
        for (index, &&(_, pid, used, _)) in found.iter().enumerate() {
            let process = Process { pid, used, gpu_instance: u32::MAX, compute_instance: u32::MAX };
            unsafe { list.add(index).write(process) }
        }
        SUCCESS
    })
}

/// Runs one function of the library, unless the state says that it fails.
fn call(symbol: &str, answer: impl FnOnce(&State) -> c_int) -> c_int {
    record(symbol);
    let state = match state() {
        Ok(state) => state,
        Err(code) => return code,
    };
    match state.failures.iter().find(|(name, _, gpu)| name == symbol && gpu.is_none()) {
        Some((_, code, _)) => *code,
        None => answer(&state),
    }
}

/// Runs one function on a GPU; `missing` is returned where that GPU is not there.
fn call_gpu(symbol: &str, device: *mut c_void, missing: c_int, answer: impl FnOnce(&State, &Gpu) -> c_int) -> c_int {
    call(symbol, |state| {
        let Some(gpu) = state.gpus.get(number(device)) else { return missing };
        match state.failures.iter().find(|(name, _, at)| name == symbol && *at == Some(number(device))) {
            Some((_, code, _)) => *code,
            None => answer(state, gpu),
        }
    })
}

fn state() -> Result<State, c_int> {
    let text = state_path().and_then(|path| fs::read_to_string(path).ok()).ok_or(DRIVER_NOT_LOADED)?;
    let mut state = State::default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let text = |at: usize| fields.get(at).copied().unwrap_or_default();
        let number = |at: usize| if text(at) == "na" { u64::MAX } else { text(at).parse().unwrap_or(0) };
        match text(0) {
            "driver" => state.driver = text(1).into(),
            "gpu" => state.gpus.push(Gpu {
                name: text(1).replace('_', " "),
                total: number(2),
                used: number(3),
                reserved: number(4),
                throttle: number(5),
                address: text(6).into(),
            }),
            "proc" => state.processes.push((number(1) as usize, number(2) as u32, number(3), text(4) == "g")),
            "fail" => state.failures.push((text(1).into(), number(2) as c_int, text(3).parse().ok())),
            _ => {}
        }
    }
    Ok(state)
}

/// Appends a function's name to the record where the state asks for one.
fn record(symbol: &str) {
    let Some(path) = state_path() else { return };
    let wanted = fs::read_to_string(&path).is_ok_and(|text| text.lines().any(|line| line.trim() == "record"));
    if wanted {
        let file = File::options().create(true).append(true).open(beside(&path, ".calls"));
        let _ = file.and_then(|mut file| writeln!(file, "{symbol}"));
    }
}

fn state_path() -> Option<PathBuf> {
    let own = own_path().map(|library| beside(&library, ".state")).filter(|path| path.exists());
    own.or_else(|| std::env::var_os("FAKE_NVML").map(PathBuf::from))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Returns where this library was loaded from.
#[cfg(unix)]
fn own_path() -> Option<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    /// `Dl_info`.
    #[repr(C)]
    struct Info {
        file: *const c_char,
        base: *mut c_void,
        symbol: *const c_char,
        address: *mut c_void,
    }
    unsafe extern "C" {
        fn dladdr(address: *const c_void, info: *mut Info) -> c_int;
    }
    let null: *mut c_void = std::ptr::null_mut();
    let mut info = Info { file: null.cast(), base: null, symbol: null.cast(), address: null };
    let here: extern "C" fn() -> c_int = nvmlInit_v2;
    if unsafe { dladdr(here as *const c_void, &mut info) } == 0 || info.file.is_null() {
        return None;
    }
    Some(PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(info.file) }.to_bytes())))
}

#[cfg(not(unix))]
fn own_path() -> Option<PathBuf> {
    None
}

fn handle(index: usize) -> *mut c_void {
    index.wrapping_add(1) as *mut c_void
}

fn number(device: *mut c_void) -> usize {
    (device as usize).wrapping_sub(1)
}

unsafe fn put(value: &str, text: *mut c_char, size: c_uint) -> c_int {
    if value.len() + 1 > size as usize {
        return INSUFFICIENT_SIZE;
    }
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), text.cast(), value.len());
        *text.add(value.len()) = 0;
    }
    SUCCESS
}
