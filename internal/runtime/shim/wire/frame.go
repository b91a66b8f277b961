// Package wire is what carob and a Pod's shim say to each other: one small JSON object per packet of a SEQPACKET unix socket.
//
// It may import nothing but the standard library's small packages: it is linked into the shim, where every kilobyte is paid per Pod.
//
// # Builds of different age
//
// A shim outlives the carob that started it, so each build speaks to shims of others, older ones after an upgrade, newer ones after the way
// back. Keys that a reader does not know are skipped, keys that are missing are zero, and a request that a shim does not know is answered with
// an error: so builds understand each other as long as Version is the same, and most changes need no other.
//
// Version changes only when a reader of the version before would do wrong. OpHello and its reply stay as they are in all versions. A shim
// answers every frame of another version with an error, and its answer carries its own version. Carob then does not drive that shim: a Pod that
// could be neither stopped nor heard would be worse than none, so the Pod is killed by its cgroups, as if its shim had died, and its containers'
// status and events say ShimVersion. A build that raises Version therefore speaks the one before to the shims that answer with it, for as long
// as upgrades from such builds are wanted.
//
// testdata/v1 is a conversation of version 1, which both sides are held to; the runtime's tests also drive a shim that is built from an
// earlier commit.
package wire

// Version is the protocol's version.
const Version = 1

// MaxFrame is the longest frame in bytes; MaxAnswer is the longest that a shim sends, so that carob needs no large buffer for each.
const (
	MaxFrame  = 128 << 10
	MaxAnswer = 8 << 10
)

// What carob asks of a shim.
const (
	OpHello    = "hello"    // → Pid of pause; then an OpState for each container, then an OpSynced
	OpSandbox  = "sandbox"  // start pause; Args: namespaces to make (net, ipc, uts, pid)
	OpRun      = "run"      // create and start a container; replies when the OCI runtime is done
	OpExec     = "exec"     // start a process in a container; the packet carries its stdio unless TTY
	OpAttach   = "attach"   // the packet carries stdin, stdout, stderr, as named by Args
	OpKill     = "kill"     // send Sig to the process of container (or exec) ID
	OpKillAll  = "killall"  // kill all processes of a container's cgroup
	OpReopen   = "reopen"   // open the container's log file anew
	OpResize   = "resize"   // set the size of a container's terminal
	OpForget   = "forget"   // drop a dead container and its fact
	OpStop     = "stop"     // kill pause
	OpShutdown = "shutdown" // kill everything and end
)

// What a shim reports unasked.
const (
	OpState  = "state"  // a container as it is, in answer to OpHello
	OpSynced = "synced" // all states are told
	OpExit   = "exit"   // a container or an exec ended
	OpPause  = "pause"  // pause ended
	OpDetach = "detach" // an attached session ended
)

// Frame is a request, its reply (same Op and Seq), or a report (Seq 0). Which fields matter depends on Op.
type Frame struct {
	V   int
	Seq int
	Op  string
	// ID is a container, or in OpExec and OpExit an exec.
	ID string
	// Of is the container that an exec runs in.
	Of  string
	Err string
	// Boot is the boot that a fact belongs to.
	Boot string

	Pid, Code, Sig int
	// Exited says in OpState that the container has ended.
	Exited int
	OOM    int
	// Started and Ended are times in nanoseconds since 1970.
	Started, Ended int

	// Bin and Root are the OCI runtime's program and its state folder. Bundle is the container's bundle folder.
	Bin, Root, Bundle string
	// Log is the container's log file, Cgroup the folder of its memory cgroup (or its only one), Process an exec's process.json,
	// Console the socket that takes the terminal of an exec.
	Log, Cgroup, Process, Console string
	TTY, Stdin, Once              int
	// Hide asks that /sys/fs/cgroup/unified be hidden from the OCI runtime.
	Hide          int
	Width, Height int
	Args          []string
}

type strField struct {
	key string
	p   *string
}

type intField struct {
	key string
	p   *int
}

func (f *Frame) strs() [12]strField {
	return [...]strField{{"op", &f.Op}, {"id", &f.ID}, {"of", &f.Of}, {"err", &f.Err}, {"boot", &f.Boot}, {"bin", &f.Bin}, {"root", &f.Root},
		{"bundle", &f.Bundle}, {"log", &f.Log}, {"cgroup", &f.Cgroup}, {"process", &f.Process}, {"console", &f.Console}}
}

func (f *Frame) ints() [15]intField {
	return [...]intField{{"v", &f.V}, {"seq", &f.Seq}, {"pid", &f.Pid}, {"code", &f.Code}, {"sig", &f.Sig}, {"exited", &f.Exited}, {"oom", &f.OOM},
		{"started", &f.Started}, {"ended", &f.Ended}, {"tty", &f.TTY}, {"stdin", &f.Stdin}, {"once", &f.Once}, {"hide", &f.Hide},
		{"width", &f.Width}, {"height", &f.Height}}
}
