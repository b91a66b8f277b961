package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// mountImages mounts the images that the container has as volumes (KEP-4639), read-only, within its folder. It notes in the record which
// image each is, and returns config with the mounts in place of the images. They stay as long as the container.
func (r *Runtime) mountImages(ctx context.Context, c *container, config *runtimeapi.ContainerConfig) (*runtimeapi.ContainerConfig, error) {
	dir := r.cfg.containerDir(c.rec.ID)
	cloned := false
	for i, m := range config.GetMounts() {
		if m.GetImage().GetImage() == "" {
			continue
		}
		if err := checkImageMount(m); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "mount %s: %v", m.GetContainerPath(), err)
		}
		img, err := r.cfg.Images.Resolve(ctx, m.GetImage().GetImage())
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.GetContainerPath(), err)
		}
		if !cloned {
			config, c.rec.Config, cloned = proto.CloneOf(config), proto.CloneOf(c.rec.Config), true
		}
		c.rec.Config.Mounts[i].Image.ImageRef = img.ID
		target, none := filepath.Join(dir, fmt.Sprintf("image-%d", i)), filepath.Join(dir, "none")
		for _, d := range []string{target, none} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return nil, err
			}
		}
		err = r.withLayers(c, img, func(layers []string) error {
			return sys.MountOverlay(target, append(layers, none), "", "") // overlay wants two
		})
		if err != nil {
			return nil, err
		}
		source, err := within(target, m.GetImageSubPath())
		if err != nil {
			return nil, fmt.Errorf("mount %s: image_sub_path %q of image %q: %w", m.GetContainerPath(), m.GetImageSubPath(), m.GetImage().GetImage(), err)
		}
		own := config.Mounts[i]
		own.HostPath, own.Image, own.ImageSubPath, own.UidMappings, own.GidMappings = source, nil, "", nil, nil
	}
	return config, nil
}

func checkImageMount(m *runtimeapi.Mount) error {
	switch sub := m.GetImageSubPath(); {
	case !m.GetReadonly():
		return fmt.Errorf("readonly: an image can be mounted read-only alone")
	case m.GetHostPath() != "":
		return fmt.Errorf("host_path and image cannot both be set")
	case m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return fmt.Errorf("propagation: an image can be mounted privately alone")
	case filepath.IsAbs(sub), strings.Contains("/"+sub+"/", "/../"):
		return fmt.Errorf("image_sub_path: %q must stay within the image", sub)
	}
	return nil
}

// within is where sub is below top, whose content never changes: links are followed as if top were the root.
func within(top, sub string) (string, error) {
	if sub == "" {
		return top, nil
	}
	f, err := sys.OpenInRoot(top, sub, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// UsesImage says whether a container runs on the image with this ID or has it as a volume.
func (r *Runtime) UsesImage(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.rec.ImageID == id {
			return true
		}
		for _, m := range c.rec.Config.GetMounts() {
			if m.GetImage().GetImageRef() == id {
				return true
			}
		}
	}
	return false
}
