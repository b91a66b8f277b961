package config

import (
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
)

// ContainerLogs says how much of each container's log is kept. The names of its settings are kubelet's.
type ContainerLogs struct {
	// MaxSize is the size in bytes from which a file is moved away; MaxFiles how many files there are at most, the one in use among them.
	MaxSize  int64
	MaxFiles int
}

func logSettings() []setting {
	return []setting{
		{"container-log-max-size", "size at which a container's log file is moved away, as 10Mi",
			func(c *Config) string {
				return resource.NewQuantity(c.ContainerLogs.MaxSize, resource.BinarySI).String()
			},
			func(c *Config, v string) error {
				q, err := resource.ParseQuantity(v)
				c.ContainerLogs.MaxSize = q.Value()
				return err
			}},
		{"container-log-max-files", "log files that are kept of a container, the one in use among them",
			func(c *Config) string { return strconv.Itoa(c.ContainerLogs.MaxFiles) },
			func(c *Config, v string) (err error) { c.ContainerLogs.MaxFiles, err = strconv.Atoi(v); return err }},
	}
}

// validate tells what is wrong, by the setting's name.
func (l ContainerLogs) validate(bad func(name, format string, args ...any)) {
	if l.MaxSize < 1 {
		bad("container-log-max-size", "must be more than nothing")
	}
	if l.MaxFiles < 2 {
		bad("container-log-max-files", "%d: at least 2 are needed, one in use and one that was moved away", l.MaxFiles)
	}
}
