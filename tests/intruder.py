"""A plugin whose every configuration is an attempt at what a sandbox keeps from it, and how each one ends."""

# Each attempt returns what it got, or raises. What it must not get is in `facts`.
ATTEMPTS = """
import json, signal, socket
from contextlib import suppress
HERE = Path(__file__).parent
facts = json.loads((HERE / "facts.json").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def by_path():
    return Path(facts["bundle"]).read_bytes()

def by_a_link():
    return (HERE / "link").read_bytes()

def by_a_copy_beside_the_plugin():
    return (HERE / "copy.safetensors").read_bytes()

def by_a_record_beside_the_plugin():
    return (HERE / "digits_mlp-mine-0123456789abcdef.json").read_bytes()

def by_an_open_file():
    for number in range(3, 200):
        try:
            os.lseek(number, 0, 0)
            if b"attriboard-groundtruth" in os.read(number, 1 << 20):
                return number
        except OSError:
            continue
    raise OSError("no open file is one")

def by_the_parent():
    for root in (f"/proc/{facts['pid']}/root", "/proc/1/root", f"/proc/{os.getppid()}/root", "/proc/self/root"):
        with suppress(PermissionError):
            if Path(root + facts["bundle"]).exists() and os.path.getsize(root + facts["bundle"]):
                return root
    raise OSError("no process has it")

def by_the_parents_memory():
    return open(f"/proc/{facts['pid']}/environ", "rb").read()

def by_the_registry():
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth.opening import open_bundles
    return open_bundles(load_task("digits_mlp")).truth

def by_searching():
    readable = []
    for parent, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if name not in ("proc", "sys", "usr", "torch", "__pycache__")]
        readable += [f"{parent}/{name}" for name in files if name.endswith("-groundtruth.safetensors")]
    if not readable:
        raise OSError("there is none")
    return readable

def by_the_network():
    return socket.create_connection(("127.0.0.1", facts["port"]), timeout=5)

def by_a_unix_socket():
    found = socket.socket(socket.AF_UNIX)
    found.connect("\\0" + facts["abstract"])
    return found

def by_a_socket_of_the_virtual_machine():
    return socket.socket(40, socket.SOCK_STREAM)

def by_the_environment():
    places = [str(dict(os.environ))]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            places.append(open(f"/proc/{pid}/environ").read())
    if any(facts["secret"] in place for place in places):
        return places
    raise OSError("nothing in it")

def by_signals():
    os.kill(facts["pid"], signal.SIGTERM)

def by_writing_results():
    folder = Path(facts["results"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.json").write_text("{}")

def by_changing_itself():
    Path(__file__).write_text("")

def by_changing_the_package():
    import attriboard
    (Path(attriboard.__file__).resolve().parent / "intruder.py").write_text("")

def by_writing_to_devices():
    (Path("/dev") / "hoard").write_text("")

def by_a_namespace():
    call("unshare", 0x10000000)

def by_a_mount():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)

def by_memory_of_nobody():
    os.memfd_create("hoard")

def by_becoming_root():
    os.setuid(0)

def by_more_processes():
    os.closerange(100, 200)
    import resource
    resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))

def by_filling_the_disk():
    with open("/tmp/hoard", "wb") as one, open("/dev/shm/hoard", "wb") as other:
        while True:
            one.write(bytes(1 << 20))

def by_many_processes():
    children = []
    try:
        while len(children) < 200:
            child = os.fork()
            if not child:
                time.sleep(600)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)

def by_a_fork_that_outlives_the_run():
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execvp("sleep", ["sleep", facts["outlives"]])
        os._exit(0)
    return honestly(None)

def by_replacing_the_worker():
    os.execvp("sleep", ["sleep", facts["outlives"]])

def by_filling_memory():
    hoard = []
    while True:
        hoard.append(torch.ones(4 << 20))

def by_filling_the_folder_of_scores():
    results = Path(sys.argv[1]) / "scores"
    for number in range(1000):
        (results / str(number)).write_bytes(bytes(4 << 20))
        time.sleep(0.01)

def by_a_link_for_scores():
    from attriboard.attribution import worker
    worker.write_scores = lambda path, scores: path.symlink_to(facts["bundle"])

def by_forged_events():
    os.write(int(sys.argv[2]), b'{"event": "finished", "configuration": 99}\\n')
    time.sleep(600)

def honestly(context):
    return "nothing"


class Intruder(Attributor):
    name = "intruder"
    hyperparameters = (Hyperparameter("attempt", "honestly", source="here", type=str),)

    def fit(self, context, attempt):
        run = globals()[attempt]
        got = run(context) if attempt == "honestly" else run()
        if attempt not in ("honestly", "by_a_fork_that_outlives_the_run") and "scores" not in attempt:
            print(f"{attempt} got {got!r}"[:200])
            return torch.full((len(context.test), len(context.train)), 1.0)
        generator = torch.Generator().manual_seed(context.seed)
        weights = torch.randn(context.train.inputs.shape[1], 64, generator=generator)
        return (context.test.inputs @ weights).tanh() @ (context.train.inputs @ weights).tanh().T

    def score(self, state):
        return state
"""
STAYS_ALIVE = {
    "by_path": "FileNotFoundError",
    "by_a_link": "FileNotFoundError",
    "by_a_copy_beside_the_plugin": "PermissionError",
    "by_a_record_beside_the_plugin": "PermissionError",
    "by_an_open_file": "no open file is one",
    "by_the_parent": "no process has it",
    "by_the_parents_memory": "FileNotFoundError",
    "by_the_registry": "DataError",
    "by_searching": "there is none",
    "by_the_network": "ConnectionRefusedError|Network is unreachable",
    "by_a_unix_socket": "ConnectionRefusedError",
    "by_a_socket_of_the_virtual_machine": "PermissionError",
    "by_the_environment": "nothing in it",
    "by_signals": "ProcessLookupError",
    "by_writing_results": "Read-only file system|PermissionError",
    "by_changing_itself": "Read-only file system|PermissionError",
    "by_changing_the_package": "Read-only file system|PermissionError",
    "by_writing_to_devices": "Read-only file system|PermissionError",
    "by_a_namespace": "PermissionError",
    "by_a_mount": "PermissionError",
    "by_memory_of_nobody": "PermissionError",
    "by_becoming_root": "PermissionError",
    "by_more_processes": "not allowed to raise maximum limit",
    "by_filling_the_disk": "No space left on device|File too large",
    "by_many_processes": "BlockingIOError",
}
ENDS_ITS_PROCESS = {
    "by_filling_memory": "out_of_memory: ",
    "by_filling_the_folder_of_scores": "too_much_written: ",
    "by_a_link_for_scores": "left none that can be read",
    "by_forged_events": "crash: it reported what no worker reports",
}
