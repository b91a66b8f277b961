package oci

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is who a container's processes are.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

type passwdEntry struct {
	name, home string
	uid, gid   uint32
}

// ResolveUser decides who a container runs as: the security context first, then the image's USER ("name", "uid", either with ":group").
// passwd and group are the image's files, or nil where it has none.
func ResolveUser(sc *runtimeapi.LinuxContainerSecurityContext, imageUser string, passwd, group io.Reader) (User, error) {
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
		return User{}, errors.New("run_as_group needs run_as_user or run_as_username")
	}
	users, groups := readPasswd(passwd), readGroup(group)
	name, groupName, _ := strings.Cut(imageUser, ":")
	switch {
	case sc.GetRunAsUser() != nil:
		name = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
		groupName = ""
	case sc.GetRunAsUsername() != "":
		name, groupName = sc.GetRunAsUsername(), ""
	case name == "":
		name = "0"
	}
	var u User
	entry, found := findUser(users, name)
	switch {
	case found:
		u = User{UID: entry.uid, GID: entry.gid, Home: entry.home}
	default:
		uid, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return u, fmt.Errorf("user %q is not in the image's /etc/passwd", name)
		}
		u.UID = uint32(uid)
	}
	if groupName != "" {
		gid, err := findGroup(groups, groupName)
		if err != nil {
			return u, err
		}
		u.GID = gid
	}
	if g := sc.GetRunAsGroup(); g != nil {
		u.GID = uint32(g.GetValue())
	}
	u.Groups = []uint32{u.GID}
	if sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge && found {
		for _, g := range groups {
			if slices.Contains(g.members, entry.name) {
				u.Groups = append(u.Groups, g.gid)
			}
		}
	}
	for _, g := range sc.GetSupplementalGroups() {
		u.Groups = append(u.Groups, uint32(g))
	}
	slices.Sort(u.Groups)
	u.Groups = slices.Compact(u.Groups)
	if u.Home == "" {
		u.Home = "/"
	}
	return u, nil
}

func findUser(users []passwdEntry, name string) (passwdEntry, bool) {
	uid, err := strconv.ParseUint(name, 10, 32)
	for _, e := range users {
		if e.name == name || err == nil && uint64(e.uid) == uid {
			return e, true
		}
	}
	return passwdEntry{}, false
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

func findGroup(groups []groupEntry, name string) (uint32, error) {
	for _, g := range groups {
		if g.name == name {
			return g.gid, nil
		}
	}
	gid, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("group %q is not in the image's /etc/group", name)
	}
	return uint32(gid), nil
}

// maxAccounts bounds what a hostile image can make us keep.
const maxAccounts = 10000

func eachLine(r io.Reader, f func(fields []string)) {
	if r == nil {
		return
	}
	sc := bufio.NewScanner(io.LimitReader(r, 4<<20))
	for n := 0; sc.Scan() && n < maxAccounts; n++ {
		f(strings.Split(sc.Text(), ":"))
	}
}

func readPasswd(r io.Reader) (list []passwdEntry) {
	eachLine(r, func(f []string) {
		if len(f) < 6 {
			return
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 == nil && err2 == nil {
			list = append(list, passwdEntry{name: f[0], uid: uint32(uid), gid: uint32(gid), home: f[5]})
		}
	})
	return list
}

func readGroup(r io.Reader) (list []groupEntry) {
	eachLine(r, func(f []string) {
		if len(f) < 4 {
			return
		}
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			list = append(list, groupEntry{name: f[0], gid: uint32(gid), members: strings.Split(f[3], ",")})
		}
	})
	return list
}
