use super::*;
use crate::units::{Bytes, Moment, Span};

const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;

#[test]
fn before_the_first_sample_everything_is_pending() {
    assert_eq!(Machine::default().picture().memory, Reading::Pending);
    assert_eq!(Machine::default().pace(), Span::seconds(30));
}

#[test]
fn the_first_sample_is_news_and_the_same_again_is_not() {
    let mut machine = Machine::default();
    assert!(machine.sampled(&ram(20 * GB), at(0)));
    assert_eq!(available(&machine), 20 * GB);
    assert!(!machine.sampled(&ram(20 * GB), at(30)));
    assert_eq!(machine.pace(), Span::seconds(30), "a first sample is no sign of activity");
}

#[test]
fn a_change_matters_from_256_mb_and_from_two_percent_on() {
    let small = |free: u64| Sample { memory: Ok(MemorySample { total: Bytes(8 * GB), ..memory(free) }), ..ram(0) };
    let mut machine = Machine::default();
    machine.sampled(&small(4 * GB), at(0));
    assert!(!machine.sampled(&small(4 * GB - 255 * MB), at(1)));
    assert!(machine.sampled(&small(4 * GB - 256 * MB), at(2)));

    // Two percent of 32 GB are 640 MB.
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    assert!(!machine.sampled(&ram(20 * GB + 639 * MB), at(1)));
    assert_eq!(available(&machine), 20 * GB);
    assert!(machine.sampled(&ram(20 * GB + 640 * MB), at(2)));
    assert_eq!(available(&machine), 20 * GB + 640 * MB);
}

#[test]
fn a_slow_drift_is_measured_from_the_picture_and_not_from_the_last_sample() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    let news: Vec<u64> = (1..=20).filter(|step| machine.sampled(&ram(20 * GB - step * 100 * MB), at(*step))).collect();
    assert_eq!(news, [7, 14]);
}

#[test]
fn a_smaller_change_is_taken_over_when_it_has_lasted_a_minute() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    assert!(!machine.sampled(&ram(19_800 * MB), at(100)));
    assert!(!machine.sampled(&ram(19_700 * MB), at(159)));
    assert!(machine.sampled(&ram(19_750 * MB), at(160)));
    assert_eq!(available(&machine), 19_750 * MB);
    assert!(!machine.sampled(&ram(19_750 * MB), at(300)));
    assert_eq!(machine.pace(), Span::seconds(30), "a drift is no sign of activity");
}

#[test]
fn a_change_that_goes_back_starts_its_minute_anew() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    machine.sampled(&ram(19_800 * MB), at(10));
    machine.sampled(&ram(20 * GB), at(40));
    assert!(!machine.sampled(&ram(19_800 * MB), at(80)));
    assert!(machine.sampled(&ram(19_800 * MB), at(140)));
}

#[test]
fn trembling_is_never_taken_over() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    let news = (1..1_000).filter(|step| machine.sampled(&ram(20 * GB - step % 2 * 79 * MB), at(step * 30))).count();
    assert_eq!((news, available(&machine)), (0, 20 * GB));
}

#[test]
fn numbers_at_a_border_do_not_make_the_picture_flicker() {
    // Back and forth by just less than matters: at most one change a minute, not one a sample.
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    let news = (1..=600).filter(|step| machine.sampled(&ram(20 * GB - step % 2 * 600 * MB), at(step * 2))).count();
    assert!(news <= 20, "{news} changes in 20 minutes");
}

#[test]
fn a_new_size_or_other_swap_is_news_at_once() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    let larger = Sample { memory: Ok(MemorySample { total: Bytes(33 * GB), ..memory(20 * GB) }), ..ram(0) };
    assert!(machine.sampled(&larger, at(1)));
    let swap = MemorySample { total: Bytes(33 * GB), swap_total: Bytes(GB), ..memory(20 * GB) };
    assert!(machine.sampled(&Sample { memory: Ok(swap), ..ram(0) }, at(2)));
}

#[test]
fn memory_that_cannot_be_read_is_unavailable_and_not_zero() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    let failing = Sample { memory: Err("no /proc".into()), ..ram(0) };
    assert!(machine.sampled(&failing, at(1)));
    assert_eq!(machine.picture().memory, Reading::Unavailable { reason: "no /proc".into() });
    assert!(!machine.sampled(&failing, at(2)));
    assert!(machine.sampled(&ram(20 * GB), at(3)));
    assert_eq!(available(&machine), 20 * GB);
}

#[test]
fn gpus_have_a_hysteresis_of_their_own() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![gpu("a", 20 * GB), gpu("b", 10 * GB)]), at(0));
    assert!(!machine.sampled(&gpus(vec![gpu("a", 20 * GB - 300 * MB), gpu("b", 10 * GB)]), at(1)));
    assert!(machine.sampled(&gpus(vec![gpu("a", 20 * GB - 300 * MB), gpu("b", 9 * GB)]), at(2)));
    assert_eq!((free(&machine, 0), free(&machine, 1)), (20 * GB, 9 * GB), "one GPU's change took the other's over");
}

#[test]
fn a_sleeping_gpu_keeps_its_number_and_the_time_it_was_read() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![gpu("a", 20 * GB)]), at(0));
    machine.sampled(&gpus(vec![gpu("a", 20 * GB)]), at(30));
    assert!(machine.sampled(&gpus(vec![asleep("a")]), at(60)));
    let Reading::Stale { value, at: read_at, reason } = &machine.picture().devices[0].memory else { panic!() };
    assert_eq!((value.free, *read_at, reason.as_str()), (Bytes(20 * GB), at(30), steady::ASLEEP));
    assert!(!machine.sampled(&gpus(vec![asleep("a")]), at(3_600)));
    assert!(machine.sampled(&gpus(vec![gpu("a", 20 * GB)]), at(3_630)), "awake again");
    assert_eq!(machine.pace(), Span::seconds(30), "waking up as it fell asleep is no sign of activity");
}

#[test]
fn a_gpu_that_sleeps_from_the_start_is_unavailable() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![asleep("a")]), at(0));
    assert_eq!(machine.picture().devices[0].memory.value(), None);
    assert!(
        matches!(&machine.picture().devices[0].memory, Reading::Unavailable { reason } if reason.contains("sleeps"))
    );
}

#[test]
fn a_gpu_that_vanishes_is_stale_for_a_minute_and_then_gone() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![gpu("a", 20 * GB), gpu("b", 10 * GB)]), at(0));
    assert!(machine.sampled(&gpus(vec![gpu("b", 10 * GB)]), at(30)));
    let absent = machine.picture().devices.iter().find(|device| device.id == "a").unwrap();
    assert!(matches!(&absent.memory, Reading::Stale { at: read_at, .. } if *read_at == at(0)));
    assert!(!machine.sampled(&gpus(vec![gpu("b", 10 * GB)]), at(89)));
    assert!(machine.sampled(&gpus(vec![gpu("b", 10 * GB)]), at(90)));
    assert_eq!(machine.picture().devices.len(), 1);
    assert!(machine.sampled(&gpus(vec![gpu("a", 20 * GB), gpu("b", 10 * GB)]), at(91)), "it came back");
    assert_eq!(free(&machine, 0), 20 * GB);
}

#[test]
fn a_gpu_whose_memory_becomes_unknown_moves_over_at_once() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![gpu("a", 20 * GB)]), at(0));
    let unknown = UnknownGpu { id: "a".into(), name: "RTX".into(), reason: "the driver is gone".into() };
    let mut sample = gpus(Vec::new());
    sample.gpus.unknown.push(unknown.clone());
    assert!(machine.sampled(&sample, at(1)));
    assert_eq!((machine.picture().devices.len(), &machine.picture().unknown), (0, &vec![unknown]));
    assert!(!machine.sampled(&sample, at(2)));
}

#[test]
fn problems_names_and_order_are_taken_over_at_once() {
    let mut machine = Machine::default();
    let mut sample = gpus(vec![gpu("a", 20 * GB), gpu("b", 10 * GB)]);
    machine.sampled(&sample, at(0));
    sample.gpus.devices[0].name = "RTX 5090".into();
    assert!(machine.sampled(&sample, at(1)));
    assert_eq!(machine.picture().devices[0].name, "RTX 5090");
    sample.gpus.devices.swap(0, 1);
    assert!(machine.sampled(&sample, at(2)));
    assert_eq!(machine.picture().devices[0].id, "b");
    sample.gpus.problems.push("odd".into());
    assert!(machine.sampled(&sample, at(3)));
    sample.gpus.driver = Some("580".into());
    assert!(machine.sampled(&sample, at(4)));
    sample.gpus.driver = None;
    assert!(!machine.sampled(&sample, at(5)), "a driver that was not asked keeps its version");
    assert_eq!(machine.picture().driver.as_deref(), Some("580"));
}

#[test]
fn the_pace_follows_headroom_and_change() {
    let mut machine = Machine::default();
    machine.sampled(&ram(20 * GB), at(0));
    assert_eq!(machine.pace(), Span::seconds(30));
    machine.sampled(&ram(10 * GB), at(30));
    assert_eq!(machine.pace(), Span::seconds(5));
    machine.sampled(&ram(2 * GB), at(35));
    assert_eq!(machine.pace(), Span::seconds(2));
    machine.sampled(&ram(2 * GB), at(94));
    assert_eq!(machine.pace(), Span::seconds(2));
    machine.sampled(&ram(2 * GB), at(95));
    assert_eq!(machine.pace(), Span::seconds(10));
    machine.sampled(&ram(20 * GB), at(105));
    machine.sampled(&ram(20 * GB), at(170));
    assert_eq!(machine.pace(), Span::seconds(30));
}

#[test]
fn a_sleeping_gpu_never_raises_the_pace() {
    let mut machine = Machine::default();
    machine.sampled(&gpus(vec![gpu("a", GB)]), at(0));
    assert_eq!(machine.pace(), Span::seconds(10), "a full GPU that is awake does");
    machine.sampled(&gpus(vec![asleep("a")]), at(10));
    assert_eq!(machine.pace(), Span::seconds(30));
}

#[test]
fn an_idle_machine_is_sampled_twice_a_minute() {
    let mut machine = Machine::default();
    let (mut now, mut samples) = (Moment(0), 0);
    while now < at(3_600) {
        // A desktop trembles by some 60 MB.
        machine.sampled(&ram(20 * GB + samples * 7_919 % 60 * MB), now);
        now = now.after(machine.pace());
        samples += 1;
    }
    assert_eq!(samples, 120);
}

fn at(seconds: u64) -> Moment {
    Moment(seconds * 1_000)
}

fn memory(available: u64) -> MemorySample {
    MemorySample {
        total: Bytes(32 * GB),
        available: Bytes(available),
        swap_total: Bytes(8 * GB),
        swap_free: Bytes(8 * GB),
    }
}

fn ram(available: u64) -> Sample {
    Sample { memory: Ok(memory(available)), gpus: GpuProbe::default() }
}

fn gpus(devices: Vec<DeviceSample>) -> Sample {
    Sample { memory: Ok(memory(20 * GB)), gpus: GpuProbe { devices, ..GpuProbe::default() } }
}

fn gpu(id: &str, free: u64) -> DeviceSample {
    let total = 24 * GB;
    let memory =
        DeviceMemory { total: Bytes(total), reserved: Bytes::ZERO, used: Bytes(total - free), free: Bytes(free) };
    DeviceSample { id: id.into(), name: "RTX".into(), vendor: Vendor::Nvidia, memory: Some(Ok(memory)) }
}

fn asleep(id: &str) -> DeviceSample {
    DeviceSample { memory: None, ..gpu(id, 0) }
}

fn available(machine: &Machine) -> u64 {
    machine.picture().memory.value().unwrap().available.0
}

fn free(machine: &Machine, index: usize) -> u64 {
    machine.picture().devices[index].memory.value().unwrap().free.0
}
