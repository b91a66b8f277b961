package pull

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/runtime/image/login"
)

// credentials reads imagePullSecrets, in their order. Secrets of other types are an error.
func credentials(secrets []*corev1.Secret) ([]login.Login, error) {
	var list []login.Login
	for _, s := range secrets {
		var found []login.Login
		var err error
		switch s.Type {
		case corev1.SecretTypeDockerConfigJson:
			found, err = login.ParseFile(s.Data[corev1.DockerConfigJsonKey])
		case corev1.SecretTypeDockercfg:
			found, err = login.ParseOldFile(s.Data[corev1.DockerConfigKey])
		default:
			err = fmt.Errorf("type %q holds no registry credentials", s.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("image pull secret %s: %w", s.Name, err)
		}
		list = append(list, found...)
	}
	return list, nil
}
