// Photos on their way in: read, set upright and scaled down here, so that little is sent, and nothing of where or when.

const LONGEST_SIDE = 1600;
const SENT_AS_IT_IS = new Set(["image/jpeg", "image/png", "image/webp"]);
const SMALL_BYTES = 400_000;

/** Returns { blob, width, height } of a picture file; throws an Error that can be shown. */
export async function prepare(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error("This file cannot be read as a picture. JPEG, PNG and WebP work everywhere.");
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  if (scale === 1 && file.size <= SMALL_BYTES && SENT_AS_IT_IS.has(file.type)) {
    bitmap.close();
    return { blob: file, width, height };
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  if (!blob) throw new Error("This picture cannot be scaled down here. Try a smaller one.");
  return { blob, width, height };
}

/** Calls `use(file)` for pictures that are dropped anywhere, pasted, chosen or taken. */
export function watchForPhotos({ file, camera, overlay }, use) {
  for (const input of [file, camera]) {
    input.addEventListener("change", () => {
      if (input.files[0]) use(input.files[0]);
      input.value = "";
    });
  }
  addEventListener("paste", (event) => {
    const picture = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (picture) {
      event.preventDefault();
      use(picture);
    }
  });
  let depth = 0;
  const carriesFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    overlay.classList.toggle("visible", depth > 0);
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && show(1));
  addEventListener("dragleave", (event) => carriesFiles(event) && show(-1));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    show(-depth);
    if (event.dataTransfer.files[0]) use(event.dataTransfer.files[0]);
  });
}
