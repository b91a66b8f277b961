package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// How long certificates may live at most, in seconds, and those of Kubernetes' own signers.
const (
	maxCertificateLife           = 91 * 24 * 60 * 60
	maxKubernetesCertificateLife = 24 * 60 * 60
)

// validateTrust checks a source of trust anchors, which names either a bundle or a signer.
func validateTrust(at *field.Path, c *corev1.ClusterTrustBundleProjection) field.ErrorList {
	var errs field.ErrorList
	switch {
	case c.Name != nil && c.SignerName != nil:
		errs = append(errs, field.Invalid(at, c, "only one of name and signerName may be used"))
	case c.Name != nil:
		name := at.Child("name")
		if *c.Name == "" {
			errs = append(errs, field.Required(name, "must be a valid object name"))
		}
		signer := ""
		if i := strings.LastIndex(*c.Name, ":"); i >= 0 {
			signer = strings.ReplaceAll((*c.Name)[:i], ":", "/")
		}
		for _, msg := range rule.TrustBundleName(signer)(*c.Name, false) {
			errs = append(errs, field.Invalid(name, *c.Name, "not a valid clustertrustbundlename: "+msg))
		}
		if c.LabelSelector != nil {
			errs = append(errs, field.Invalid(at.Child("labelSelector"), c.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	case c.SignerName != nil:
		if *c.SignerName == "" {
			errs = append(errs, field.Required(at.Child("signerName"), "must be a valid signer name"))
		}
		errs = append(errs, rule.SignerName(at.Child("signerName"), *c.SignerName)...)
		errs = append(errs, metav1validation.ValidateLabelSelector(c.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
	default:
		errs = append(errs, field.Required(at, "either name or signerName must be specified"))
	}
	errs = append(errs, required(at.Child("path"), c.Path)...)
	errs = append(errs, user(at.Child("user"), c.User)...)
	return append(errs, filePath(at.Child("path"), c.Path)...)
}

// validateCertificate checks a source of a certificate of the Pod's own.
func validateCertificate(at *field.Path, c *corev1.PodCertificateProjection) field.ErrorList {
	errs := rule.SignerName(at.Child("signerName"), c.SignerName)
	if c.UserAnnotations != nil {
		errs = append(errs, rule.UserAnnotations(at.Child("userAnnotations"), c.UserAnnotations)...)
	}
	errs = append(errs, user(at.Child("user"), c.User)...)
	errs = append(errs, rule.Known(at.Child("keyType"), c.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")...)
	if n := c.MaxExpirationSeconds; n != nil {
		most := int32(maxCertificateLife)
		if rule.KubernetesSigner(c.SignerName) {
			most = maxKubernetesCertificateLife
		}
		if *n < 3600 {
			errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), *n, "if provided, maxExpirationSeconds must be >= 3600"))
		}
		if *n > most {
			errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), *n, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", most)))
		}
	}
	none := true
	for _, p := range []struct{ name, path string }{{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath}} {
		if p.path != "" {
			none = false
			errs = append(errs, filePath(at.Child(p.name), p.path)...)
		}
	}
	if none {
		errs = append(errs, field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	return errs
}
