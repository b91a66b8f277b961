package network

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleEnv tells a copy of the test program what it is: the node, on which the tests run, or a Pod's holder.
const roleEnv = "CAROB_NETWORK_TEST_ROLE"

// TestMain runs the tests on a node of their own: this program again, in new network and mount namespaces.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "node":
		os.Exit(m.Run())
	case "pod":
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if os.Getuid() != 0 {
		os.Exit(m.Run()) // those that need the node skip themselves
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=node")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests on the test node:", err)
		os.Exit(1)
	}
}

func needNode(t testing.TB) {
	t.Helper()
	if os.Getenv(roleEnv) != "node" {
		t.Skip("needs root")
	}
}

// testPod is a network namespace held by a process, as pause holds a Pod's.
type testPod struct {
	ns    *os.File
	stdin io.Closer
	cmd   *exec.Cmd
}

func newPod(t testing.TB) *testPod {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=pod")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	p := &testPod{ns: ns, stdin: stdin, cmd: cmd}
	t.Cleanup(p.end)
	return p
}

// end lets the kernel take the namespace away.
func (p *testPod) end() {
	p.ns.Close()
	p.stdin.Close()
	p.cmd.Wait()
}

// run calls f on a thread that is in the Pod's network namespace. Sockets that f makes stay there.
func (p *testPod) run(t testing.TB, f func() error) {
	t.Helper()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			errs <- err
			return
		}
		errs <- f()
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// serve answers every connection to port in the Pod with the client's address as the Pod sees it.
func (p *testPod) serve(t testing.TB, port int) {
	t.Helper()
	p.run(t, func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go answer(l)
		return nil
	})
}

func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
		c.Close()
	}
}

// ask connects and returns what serve answers.
func ask(addr netip.AddrPort) (string, error) {
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func (p *testPod) ask(t testing.TB, addr netip.AddrPort) (got string) {
	t.Helper()
	p.run(t, func() (err error) {
		got, err = ask(addr)
		return err
	})
	return got
}

func testConfig(t testing.TB) Config {
	return Config{
		NFTable: "carob_test", Dir: t.TempDir(),
		NodeCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.7.0/24")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func newNetwork(t testing.TB, cfg Config) *Network {
	t.Helper()
	needNode(t)
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		if err := Uninstall(t.Context(), cfg); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return n
}

func attach(t testing.TB, n *Network, p *testPod, id string, ports ...HostPort) netip.Addr {
	t.Helper()
	res, err := n.Attach(t.Context(), Request{SandboxID: id, NetNS: p.ns, HostPorts: ports})
	if err != nil {
		t.Fatal(err)
	}
	return res.IPs[0]
}

// links are the names of the node's links that are ours.
func links(t testing.TB) []string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		if l.Type() == "veth" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not so after 5 s: %s", what)
}
