package device

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"

	resourcev1 "k8s.io/api/resource/v1"

	"carob.dev/carob/internal/api/rule"
)

// unlimited is the limit of lists that have none.
const unlimited = -1

// each checks every item of a list, which may have at most limit items. A list that is too long is not looked into.
func each[T any](at *field.Path, list []T, limit int, check func(at *field.Path, item T) field.ErrorList) field.ErrorList {
	if limit >= 0 && len(list) > limit {
		return field.ErrorList{field.TooMany(at, len(list), limit)}
	}
	var errs field.ErrorList
	for i, item := range list {
		errs = append(errs, check(at.Index(i), item)...)
	}
	return errs
}

// set is each for lists in which no key may come twice.
func set[T any, K comparable](at *field.Path, list []T, limit int, key func(T) K, check func(at *field.Path, item T) field.ErrorList) field.ErrorList {
	errs := each(at, list, limit, check)
	if limit >= 0 && len(list) > limit {
		return errs
	}
	seen := map[K]bool{}
	for i, item := range list {
		k := key(item)
		if seen[k] {
			errs = append(errs, field.Duplicate(at.Index(i), k))
		}
		seen[k] = true
	}
	return errs
}

// table checks the keys, reported at the map, and the values of a map, in order of keys.
func table[K ~string, T any](at *field.Path, m map[K]T, limit int, checkKey func(at *field.Path, key string) field.ErrorList,
	check func(at *field.Path, item T) field.ErrorList,
) field.ErrorList {
	if limit >= 0 && len(m) > limit {
		return field.ErrorList{field.TooMany(at, len(m), limit)}
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	var errs field.ErrorList
	for _, k := range keys {
		errs = append(errs, checkKey(at, k)...)
		if check != nil {
			errs = append(errs, check(at.Key(shorten(k)), m[K(k)])...)
		}
	}
	return errs
}

// shorten takes the middle out of keys that are longer than any that is right.
func shorten(key string) string {
	const most = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength
	if len(key) <= most {
		return key
	}
	left := most - len("...")
	return key[:(left+1)/2] + "..." + key[len(key)-left/2:]
}

func itself[T any](v T) T { return v }

func required(at *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

// poolName wants subdomains, joined by slashes.
func poolName(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(at, "", resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, rule.Subdomain(at, part)...)
	}
	return errs
}

// qualifiedName wants an identifier, with or without the domain of a driver before it.
func qualifiedName(at *field.Path, name string) field.ErrorList {
	domain, id, found := strings.Cut(name, "/")
	if !found {
		return identifier(at, name)
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Invalid(at, "", "the domain must not be empty"))
	} else {
		errs = append(errs, rule.DriverName(at, domain)...)
	}
	if id == "" {
		return append(errs, field.Invalid(at, "", "the name must not be empty"))
	}
	return append(errs, identifier(at, id)...)
}

func fullName(at *field.Path, name resourcev1.FullyQualifiedName) field.ErrorList {
	errs := qualifiedName(at, string(name))
	if !strings.Contains(string(name), "/") {
		errs = append(errs, field.Invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

func identifier(at *field.Path, id string) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(at, "", resourcev1.DeviceMaxIDLength))
	}
	return append(errs, rule.Messages(at, id, content.IsCIdentifier(id))...)
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func uuid(at *field.Path, value string) field.ErrorList {
	if uuidForm.MatchString(value) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, value, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
}

// semver is the form of versions, as semver.org has it.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
