package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/google/nftables"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// unlockNetwork takes away the rules by which a CRIU that was killed kept packets from the Pod while it was at work: a chain CRIU made with
// iptables, or a table of nftables. Without it the Pod would stay out of reach.
func (r *Runtime) unlockNetwork(sb *sandbox) error {
	r.mu.Lock()
	rec := sb.rec
	r.mu.Unlock()
	if rec.Boot != r.boot || rec.PausePID == 0 || rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	err := sys.InNamespaces(rec.PausePID, []string{"net"}, func() error {
		return errors.Join(unlockTable(), unlockChain("iptables"), unlockChain("ip6tables"))
	})
	if errors.Is(err, fs.ErrNotExist) { // pause has ended
		return nil
	}
	if err != nil {
		return fmt.Errorf("let packets through to the Pod again: %w", err)
	}
	return nil
}

// unlockChain removes the chain CRIU, by the program that CRIU makes it with. If the machine has no such program, there is none.
func unlockChain(program string) error {
	program, err := exec.LookPath(program)
	if err != nil || exec.Command(program, "-w", "-n", "-L", "CRIU").Run() != nil {
		return nil
	}
	restore := exec.Command(program+"-restore", "-w", "--noflush")
	restore.Stdin = strings.NewReader("*filter\n:CRIU - [0:0]\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-X CRIU\nCOMMIT\n")
	if out, err := restore.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", restore.Path, err, bytes.TrimSpace(out))
	}
	return nil
}

// unlockTable removes the tables CRIU-<pid>.
func unlockTable() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil // a kernel without nftables
	}
	found := false
	for _, t := range tables {
		if strings.HasPrefix(t.Name, "CRIU-") {
			conn.DelTable(t)
			found = true
		}
	}
	if !found {
		return nil
	}
	return conn.Flush()
}
