package auth

import (
	"crypto/x509"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	certificate "k8s.io/apiserver/pkg/authentication/request/x509"
)

// NewAuthenticator knows clients by, in this order: own (the clients of this process), a certificate that the authorities of pool signed,
// a bearer token. A request without any of these is system:anonymous; one with a bad token is refused.
func NewAuthenticator(own authenticator.Request, pool func() *x509.CertPool, tokens authenticator.Token) authenticator.Request {
	certificates := certificate.NewDynamic(func() (x509.VerifyOptions, bool) {
		opts := certificate.DefaultVerifyOptions()
		opts.Roots = pool()
		return opts, opts.Roots != nil
	}, certificate.CommonNameUserConversion)
	known := group.NewAuthenticatedGroupAdder(union.New(
		own,
		certificates,
		bearertoken.New(tokens),
		websocket.NewProtocolAuthenticator(tokens),
	))
	return union.NewFailOnError(known, anonymous.NewAuthenticator(nil))
}
