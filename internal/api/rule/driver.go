package rule

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// driverNameMax is how long the name of a driver may be.
const driverNameMax = 63

// DriverName wants the name of a storage or device driver: a DNS subdomain, in whatever case, of at most 63 characters.
func DriverName(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > driverNameMax {
		errs = append(errs, field.TooLong(path, "", driverNameMax))
	}
	return append(errs, Messages(path, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

// ClassName wants the name of a class of storage or of volume attributes.
func ClassName(path *field.Path, name string) field.ErrorList {
	return Messages(path, name, apivalidation.NameIsDNSSubdomain(name, false))
}
