package serve

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Image is an image that is served, by its name without the registry: library/nginx:1.8. No login is tried.
func (r *Registry) Image(image string) (v1.Image, error) {
	ref, err := name.ParseReference(r.Addr+"/"+image, name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Image(ref)
}

// Put serves an image, which may be made of those that are served already, by a name without the registry. No login is tried.
func (r *Registry) Put(image string, img v1.Image) error {
	ref, err := name.ParseReference(r.Addr+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img); err != nil {
		return fmt.Errorf("serve %s: %w", image, err)
	}
	r.Images = append(r.Images, image)
	return nil
}
