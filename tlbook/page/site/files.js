"use strict";
// From what a person drops or chooses to pictures with a class and a group.

/** Files {path: ["photos", "cats", "17", "3.jpg"], file} of what was dropped, folders opened. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ path: [file.name], file }));
  return (await Promise.all(entries.map((entry) => filesBelow(entry, [])))).flat();
}

async function filesBelow(entry, above) {
  const path = [...above, entry.name];
  if (isClutter(entry.name)) return [];
  if (entry.isFile) {
    const file = await new Promise((give, fail) => entry.file(give, fail));
    return [{ path, file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((give, fail) => reader.readEntries(give, fail)); // a hundred at a time
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map((inner) => filesBelow(inner, path)))).flat();
}

/** Files of an <input type="file">, with their paths where a folder was chosen. */
function chosenFiles(input) {
  const files = [...input.files].map((file) => ({ path: (file.webkitRelativePath || file.name).split("/"), file }));
  return files.filter(({ path }) => !path.some(isClutter));
}

/** What file managers and archives leave behind. */
function isClutter(name) {
  return name.startsWith(".") || /^(thumbs\.db|desktop\.ini|__macosx|@eadir)$/i.test(name);
}

const looksLikeAPicture = (name) => /\.(jpe?g|jfif|png|gif|bmp|webp|avif|tiff?|hei[cf])$/i.test(name);

/** [[class, files with the path below the class's folder], …]. One folder holds a folder for each class; where pictures
 *  lie directly in it, or where several folders were dropped, each is a class itself. */
function byClass(files) {
  const folders = new Set(files.map(({ path }) => path[0]));
  const directly = files.some(({ path }) => path.length === 2 && looksLikeAPicture(path[1]));
  const isRoot = folders.size === 1 && !directly && files.some(({ path }) => path.length > 2);
  const depth = isRoot ? 1 : 0;
  const classes = Object.create(null); // a folder may be called as anything is
  for (const { path, file } of files) {
    if (path.length < depth + 2) continue; // a note beside the folders
    (classes[path[depth]] ||= []).push({ path: path.slice(depth + 1), file });
  }
  const order = (a, b) => (a < b ? -1 : 1);
  const sorted = Object.entries(classes).sort((a, b) => order(a[0], b[0]));
  return sorted.map(([name, found]) => [name, found.sort((a, b) => order(a.path.join("\0"), b.path.join("\0")))]);
}

/** How pictures can be kept together: {value: {name, why, group(picture)}}, those of which there are groups. */
function groupings(pictures, alike) {
  const inFolder = ({ path }) => (path.length > 1 ? path.slice(0, -1).join("/") : path[0]);
  const byName = ({ path }) => path.at(-1).replace(/\.[^.]*$/, "").replace(/[-_ ][^-_ ]*$/, "");
  const some = (group) => {
    const n = new Set(pictures.map(group)).size;
    return n > 1 && n < pictures.length ? n : 0;
  };
  const kinds = {
    none: { name: "single pictures", why: "Right if each picture shows another thing.", group: null, n: 1 },
    folder: {
      name: "folders",
      why: "Pictures of one folder below the class's are kept on one side: patients, days, cameras.",
      group: inFolder,
      n: pictures.some(({ path }) => path.length > 1) ? some(inFolder) : 0,
    },
    name: {
      name: "file names up to the last - or _",
      why: "panel7_03.png and panel7_04.png are kept on one side.",
      group: byName,
      n: pictures.length > 3 ? some(byName) : 0,
    },
    alike: {
      name: "pictures that look alike",
      why: "Pictures that look nearly the same are kept on one side: whoever has seen one has seen the other.",
      group: alike && ((picture) => alike[pictures.indexOf(picture)]),
      n: alike ? new Set(alike).size : 0,
    },
  };
  return Object.fromEntries(Object.entries(kinds).filter(([, kind]) => kind.n));
}
