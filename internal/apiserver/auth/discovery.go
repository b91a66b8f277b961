package auth

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Paths at which others learn how to check this cluster's tokens, as OpenID Connect has it.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	KeysPath      = "/openid/v1/jwks"
)

// discovery is the document at DiscoveryPath.
type discovery struct {
	Issuer        string   `json:"issuer"`
	Keys          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
}

// jwk is a public key as RFC 7517 and RFC 7518 have it.
type jwk struct {
	Use       string `json:"use"`
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Curve     string `json:"crv"`
	Algorithm string `json:"alg"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

// ServeDiscovery writes the document about the issuer; at is where this server is reached, as in https://192.0.2.1:6443.
func (t *Tokens) ServeDiscovery(w http.ResponseWriter, at string) {
	serveDocument(w, "application/json", discovery{
		Issuer: Issuer, Keys: at + KeysPath, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, SigningAlgs: []string{algorithm},
	})
}

// ServeKeys writes the keys that tokens are checked with.
func (t *Tokens) ServeKeys(w http.ResponseWriter) {
	point, err := t.key.PublicKey.Bytes() // 4, then both coordinates
	if err != nil {
		http.Error(w, fmt.Sprintf("the signing key: %v", err), http.StatusInternalServerError)
		return
	}
	serveDocument(w, "application/jwk-set+json", map[string][]jwk{"keys": {{
		Use: "sig", Type: "EC", ID: t.id, Curve: "P-256", Algorithm: algorithm,
		X: b64.EncodeToString(point[1 : 1+coordinate]), Y: b64.EncodeToString(point[1+coordinate:]),
	}}})
}

func serveDocument(w http.ResponseWriter, contentType string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(raw) // to a client that may be gone
}
