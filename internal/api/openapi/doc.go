// Package openapi is the OpenAPI definitions of the types that Carob serves, made by openapi-gen from the sources of
// k8s.io/api and k8s.io/apimachinery. A served group that is missing in the list below cannot be installed: the API
// server finds no definition of its types.
//
// It imports nothing of the project.
package openapi

//go:generate go tool openapi-gen --go-header-file /dev/null --report-filename /dev/null --output-dir . --output-pkg carob.dev/carob/internal/api/openapi --output-file zz_generated.openapi.go k8s.io/api/apps/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/api/autoscaling/v1 k8s.io/api/coordination/v1 k8s.io/api/certificates/v1 k8s.io/api/core/v1 k8s.io/api/discovery/v1 k8s.io/api/events/v1 k8s.io/api/node/v1 k8s.io/api/policy/v1 k8s.io/api/rbac/v1 k8s.io/api/resource/v1 k8s.io/api/storage/v1 k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/version k8s.io/metrics/pkg/apis/metrics/v1beta1
