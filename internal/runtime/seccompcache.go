package runtime

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccompAnnotation has crun load a seccomp program instead of compiling the profile that the specification holds, which is left in for
// versions that do not know the annotation. Compiling is a third of crun's time, and every container with the same profile needs the same.
const seccompAnnotation = "run.oci.seccomp_bpf_data"

const (
	// maxPrograms bounds the memory for programs; more different profiles than that are compiled each time.
	maxPrograms = 64
	// maxProgram is the kernel's limit of 4096 instructions of 8 bytes.
	maxProgram = 4096 * 8
)

// seccompKey is the digest of a profile.
type seccompKey [sha256.Size]byte

// seccompCache keeps the programs that crun compiled, in base64, by profile.
type seccompCache struct {
	mu       sync.Mutex
	programs map[seccompKey]string
}

// offer adds the program to the specification if it is known. If not, and if it is worth knowing, it returns the key to learn it by.
func (c *seccompCache) offer(spec *specs.Spec) *seccompKey {
	if spec.Linux == nil || spec.Linux.Seccomp == nil || len(spec.Linux.Seccomp.Flags) > 0 || spec.Linux.Seccomp.ListenerPath != "" {
		return nil // none, or more than a program
	}
	raw, err := json.Marshal(spec.Linux.Seccomp)
	if err != nil {
		return nil
	}
	key := seccompKey(sha256.Sum256(raw))
	c.mu.Lock()
	program := c.programs[key]
	c.mu.Unlock()
	if program == "" {
		return &key
	}
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	spec.Annotations[seccompAnnotation] = program
	return nil
}

// learn takes the program over that crun has left in its state folder of a container which it compiled the profile for.
func (c *seccompCache) learn(key *seccompKey, state string) {
	if key == nil {
		return
	}
	raw, err := os.ReadFile(filepath.Join(state, "seccomp.bpf"))
	if err != nil || len(raw) == 0 || len(raw)%8 != 0 || len(raw) > maxProgram {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.programs == nil {
		c.programs = map[seccompKey]string{}
	}
	if len(c.programs) < maxPrograms {
		c.programs[*key] = base64.StdEncoding.EncodeToString(raw)
	}
}
