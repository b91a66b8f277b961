package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

func secretKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:         "secrets", Singular: "secret",
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Secret{} },
		NewList:    func() runtime.Object { return &corev1.SecretList{} },

		Default: defaulter(defaultSecret),
		PrepareForUpdate: onUpdate(func(s, old *corev1.Secret) {
			if s.Type == "" {
				s.Type = old.Type
			}
		}),
		Validate:                 check(validateSecret),
		ValidateUpdate:           checkUpdate(validateSecretUpdate),
		Warnings:                 secretWarnings,
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Type", "string", corev1.Secret{}.SwaggerDoc()["type"]),
			column("Data", "string", corev1.Secret{}.SwaggerDoc()["data"]),
			ageColumn(),
		},
		Row: row(func(s *corev1.Secret, now time.Time) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp, now)}
		}),
		Fields: selectable(func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} }),
	}
}

// defaultSecret also moves stringData into data, where it wins.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// validateSecret checks the keys, the size and what the type of the Secret promises to have.
func validateSecret(s *corev1.Secret) field.ErrorList {
	errs := rule.Meta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	data := field.NewPath("data")
	size := 0
	for key, value := range s.Data {
		errs = append(errs, rule.ConfigMapKey(data.Key(key), key)...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	missing := func(keys ...string) {
		for _, key := range keys {
			if _, ok := s.Data[key]; !ok {
				errs = append(errs, field.Required(data.Key(key), ""))
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		missing(corev1.DockerConfigKey)
		errs = append(errs, isJSON(data, s.Data, corev1.DockerConfigKey)...)
	case corev1.SecretTypeDockerConfigJson:
		missing(corev1.DockerConfigJsonKey)
		errs = append(errs, isJSON(data, s.Data, corev1.DockerConfigJsonKey)...)
	case corev1.SecretTypeBasicAuth:
		_, hasName := s.Data[corev1.BasicAuthUsernameKey]
		if _, hasPassword := s.Data[corev1.BasicAuthPasswordKey]; !hasName && !hasPassword {
			missing(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		missing(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return errs
}

// isJSON checks that a value, where it is there, is a JSON object. The error does not show it.
func isJSON(path *field.Path, data map[string][]byte, key string) field.ErrorList {
	value, ok := data[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(value, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(path.Key(key), "<secret contents redacted>", err.Error())}
	}
	return nil
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := rule.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rule.Immutable(field.NewPath("type"), s.Type, old.Type)...)
	if ptr.Deref(old.Immutable, false) {
		errs = append(errs, frozen("immutable", ptr.Deref(s.Immutable, false))...)
		errs = append(errs, frozen("data", equality.Semantic.DeepEqual(s.Data, old.Data))...)
	}
	return append(errs, validateSecret(s)...)
}

// secretWarnings warns of a certificate and a key that do not belong together.
func secretWarnings(_ context.Context, obj, _ runtime.Object) []string {
	s := obj.(*corev1.Secret)
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
