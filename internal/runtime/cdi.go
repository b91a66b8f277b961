package runtime

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// injectCDI gives a container the devices that it names, with all that their vendors' specifications in the folders dirs say: nodes, mounts,
// variables, hooks. The folders are read each time that a container names a device; a specification that is broken matters only to those
// that need it.
func injectCDI(dirs []string, spec *specs.Spec, devices []*runtimeapi.CDIDevice) error {
	if len(devices) == 0 {
		return nil
	}
	var names []string
	for _, d := range devices {
		if d.GetName() == "" {
			return status.Error(codes.InvalidArgument, "CDI_devices: a device has no name")
		}
		names = append(names, d.GetName())
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("read CDI specifications: %w", err)
	}
	if _, err := cache.InjectDevices(spec, names...); err != nil {
		for _, broken := range cache.GetErrors() {
			err = errors.Join(append([]error{err}, broken...)...)
		}
		return fmt.Errorf("CDI devices: %w", err)
	}
	return nil
}
