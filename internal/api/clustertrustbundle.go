package api

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// maxTrustBundle is the size of the largest bundle in bytes.
const maxTrustBundle = 1 << 20

func clusterTrustBundleKind() *Kind {
	return &Kind{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle"),
		Resource:         "clustertrustbundles", Singular: "clustertrustbundle",
		New:     func() runtime.Object { return &certificatesv1.ClusterTrustBundle{} },
		NewList: func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },

		Validate: check(func(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
			return append(validateTrustBundleNames(b), validateTrustBundle(field.NewPath("spec", "trustBundle"), b.Spec.TrustBundle)...)
		}),
		ValidateUpdate: checkUpdate(func(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
			errs := validateTrustBundleNames(b)
			if b.Spec.TrustBundle != old.Spec.TrustBundle {
				errs = append(errs, validateTrustBundle(field.NewPath("spec", "trustBundle"), b.Spec.TrustBundle)...)
			}
			errs = append(errs, rule.MetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
			return append(errs, rule.Immutable(field.NewPath("spec", "signerName"), b.Spec.SignerName, old.Spec.SignerName)...)
		}),

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("SignerName", "string", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]),
		},
		Row: row(func(b *certificatesv1.ClusterTrustBundle, _ time.Time) []any {
			return []any{b.Name, or(b.Spec.SignerName, "<none>")}
		}),
		Fields: selectable(func(b *certificatesv1.ClusterTrustBundle) fields.Set {
			return fields.Set{"spec.signerName": b.Spec.SignerName}
		}),
	}
}

// validateTrustBundleNames wants the name to begin with that of the signer, if there is one.
func validateTrustBundleNames(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	signer := b.Spec.SignerName
	errs := rule.Meta(&b.ObjectMeta, false, rule.TrustBundleName(signer))
	if signer != "" {
		errs = append(errs, rule.SignerName(field.NewPath("spec", "signerName"), signer)...)
	}
	return errs
}

// validateTrustBundle wants certificates of authorities in PEM, each once, and nothing else.
func validateTrustBundle(path *field.Path, in string) field.ErrorList {
	if len(in) > maxTrustBundle {
		return field.ErrorList{field.TooLong(path, "", maxTrustBundle)}
	}
	var errs field.ErrorList
	bad := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	var order []string
	at := map[string][]int{}
	for i, rest := 0, []byte(in); ; i++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		switch {
		case b.Type != "CERTIFICATE":
			bad("entry %d has bad block type: %v", i, b.Type)
		case len(b.Headers) != 0:
			bad("entry %d has PEM block headers", i)
		case err != nil:
			bad("entry %d does not parse as X.509", i)
		case !cert.IsCA:
			bad("entry %d does not have the CA bit set", i)
		case !cert.BasicConstraintsValid:
			bad("entry %d has invalid basic constraints", i)
		default:
			key := string(b.Bytes)
			if at[key] == nil {
				order = append(order, key)
			}
			at[key] = append(at[key], i)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(order) == 0 {
		bad("at least one trust anchor must be provided")
	}
	for _, key := range order {
		if len(at[key]) > 1 {
			bad("duplicate trust anchor (indices %v)", at[key])
		}
	}
	return errs
}
