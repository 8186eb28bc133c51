// The report of an index out of range: the host reads it with the next result and makes an error of it. The module
// declares the binding behind its others,
//   var<storage, read_write> faults: Faults;
// and has `fault_op: u32` as its last parameter. One fault is told, any of them; the kernel leaves out what it cannot do.

struct Faults { count: atomic<u32>, value: u32, place: u32, limit: u32, op: u32 }

fn fault(value: u32, place: u32, limit: u32) {
    if atomicAdd(&faults.count, 1u) == 0u {
        faults.value = value;
        faults.place = place;
        faults.limit = limit;
        faults.op = p.fault_op;
    }
}
