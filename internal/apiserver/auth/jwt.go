package auth

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// A token is a JSON Web Token (RFC 7519) in compact form, signed with ES256: header.claims.signature, each in base64url.

type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

const (
	algorithm  = "ES256"
	coordinate = 32 // bytes of each half of a P-256 signature
)

var b64 = base64.RawURLEncoding

// errForeign says that a token is not one of ours: another authenticator may know it.
var errForeign = errors.New("not a token of this cluster")

// keyID is derived from the key, as Kubernetes derives it: base64url of the SHA-256 of its public half in DER.
func keyID(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("key ID: %w", err)
	}
	sum := sha256.Sum256(der)
	return b64.EncodeToString(sum[:]), nil
}

func sign(key *ecdsa.PrivateKey, id string, claims any) (string, error) {
	h, err := json.Marshal(header{Algorithm: algorithm, KeyID: id})
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	body := b64.EncodeToString(h) + "." + b64.EncodeToString(c)
	sum := sha256.Sum256([]byte(body))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	sig := make([]byte, 2*coordinate)
	r.FillBytes(sig[:coordinate])
	s.FillBytes(sig[coordinate:])
	return body + "." + b64.EncodeToString(sig), nil
}

// verify checks the signature and reads the claims. It is errForeign for what was not signed with this key.
func verify(key *ecdsa.PublicKey, id, token string, claims any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errForeign
	}
	raw, err := b64.DecodeString(parts[0])
	if err != nil {
		return errForeign
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil || h.Algorithm != algorithm || h.KeyID != id {
		return errForeign
	}
	sig, err := b64.DecodeString(parts[2])
	if err != nil || len(sig) != 2*coordinate {
		return errForeign
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(sig[:coordinate]), new(big.Int).SetBytes(sig[coordinate:])
	if !ecdsa.Verify(key, sum[:], r, s) {
		return errors.New("the signature of the token is wrong")
	}
	body, err := b64.DecodeString(parts[1])
	if err != nil {
		return errors.New("the claims of the token are not base64")
	}
	if err := json.Unmarshal(body, claims); err != nil {
		return fmt.Errorf("the claims of the token: %w", err)
	}
	return nil
}
