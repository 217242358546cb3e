// The camera: opening it, and handing its frames on one by one.

/**
 * Open a camera.
 *
 * @param {HTMLVideoElement} video plays the camera, unseen.
 * @param {?string} deviceId the camera; null takes the one that looks at the user.
 * @returns {Promise<{stop: function(): void, mirrored: boolean, next: ?string}>} how to close it, whether it looks at
 *   the user, and the id of the camera after it, around the list of all; null if there is no other.
 */
export async function openCamera(video, deviceId) {
  if (!navigator.mediaDevices) throw new Error("the browser allows it on https pages and on localhost only");
  const chosen = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: false,
    video: { ...chosen, width: { ideal: 640 }, height: { ideal: 480 } },
  });
  const [track] = stream.getVideoTracks();
  const stop = () => stream.getTracks().forEach((each) => each.stop());
  try {
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    stop();
    throw error;
  }
  const own = track.getSettings();
  const devices = await navigator.mediaDevices.enumerateDevices();
  const ids = devices.filter(({ kind, deviceId: id }) => kind === "videoinput" && id).map(({ deviceId: id }) => id);
  return { stop, mirrored: own.facingMode !== "environment", next: after(ids, own.deviceId) };
}

/** The id after this one, from the last on to the first; null if there is no other. */
export function after(ids, own) {
  const others = ids.filter((id) => id !== own);
  return others.length ? (ids.slice(ids.indexOf(own) + 1).find((id) => id !== own) ?? others[0]) : null;
}

/** Wait for the next frame of a video. */
export function nextFrame(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(() => resolve());
    else requestAnimationFrame(() => resolve());
  });
}

/** Count frames: a function that is called for each one and returns frames a second over the last second or two. */
export function frameCounter() {
  const times = [];
  return (now) => {
    times.push(now);
    while (times.length > 2 && now - times[0] > 1500) times.shift();
    return times.length > 1 ? (1000 * (times.length - 1)) / (now - times[0]) : 0;
  };
}
